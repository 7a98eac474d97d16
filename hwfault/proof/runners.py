"""Other engines, and real accelerators, in onnxruntime's place: a function, a command line, an HTTP endpoint.

Each is called with a batch's inputs by name and answers as hwfault.proof.answer says. What they answer is trusted in
nothing: arrays are read without unpickling, and their sizes are checked before memory is taken.
"""

import os
import queue
import secrets
import shlex
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import suppress
from http.client import BadStatusLine, HTTPException, IncompleteRead, LineTooLong
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from hwfault.errors import HwfaultError
from hwfault.inputs import check_regular
from hwfault.npz import read_arrays, write_arrays
from hwfault.own_code import named
from hwfault.proof.answer import Runner

Arrays = dict[str, NDArray[Any]]

LARGEST_ANSWER = 1 << 30
"""The most bytes of an answer, packed and unpacked."""
_TOLD = 600
_TOKEN = "HWFAULT_RUNNER"
"""The environment variable by which the children of a runner are known."""
_ROUNDS = 20


def by_function(spec: str, timeout: float) -> Runner:
    """A runner that is `module:function`, called in this process with the arrays by name.

    A call that takes longer than `timeout` seconds is an error; it goes on in a thread until the process ends. Raises
    HwfaultError if it cannot be imported.
    """
    function = named("the runner", spec)
    return lambda arrays: _within(timeout, f"the runner {spec!r}", lambda: function(arrays))


def by_command(command: str, timeout: float) -> Runner:
    """A runner that is a command line, run once a batch with two arguments more: the .npz file of the arrays, and the
    .npz file that it has to write its answer to.

    It runs in a session of its own, and is ended after `timeout` seconds, with all the processes that it began, also if
    it ends by itself before. Raises HwfaultError for an empty
    command line; calls raise it for a command that cannot be run, fails, or writes no .npz file.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise HwfaultError(f"the runner's command {command!r} cannot be read: {error}") from None
    if not words:
        raise HwfaultError("the runner's command is empty, expected a program and its arguments")

    def runner(arrays: Arrays) -> Arrays:
        with tempfile.TemporaryDirectory() as folder:
            question, answer, log = (Path(folder) / name for name in ("input.npz", "output.npz", "log.txt"))
            write_arrays(question, arrays)
            with open(log, "w+b") as said:
                code = _execute([*words, str(question), str(answer)], said, timeout)
                if code or not answer.is_file():
                    wrong = f"ended with exit code {code}" if code else f"wrote no {answer.name}, its last argument"
                    raise HwfaultError(f"the runner {words[0]!r} {wrong}{_tail(said)}")
            return _read(answer, f"the runner {words[0]!r}")

    return runner


def _execute(words: list[str], said: IO[bytes], timeout: float) -> int:
    """The exit code of a process; it and all of its children are ended when it ends, fails, or the time is over."""
    token = secrets.token_hex(16)
    own = {**os.environ, _TOKEN: token}
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=own, start_new_session=True
        )
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise HwfaultError(f"the runner {words[0]!r} cannot be run ({reason}); expected a program") from None
    try:
        if not _ended(process.pid, timeout):
            raise HwfaultError(_late(f"the runner {words[0]!r}", timeout) + _tail(said)) from None
    finally:
        # its number is nobody else's as long as nobody has asked for its exit code
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _end_marked(f"{_TOKEN}={token}".encode())
    return process.returncode


def _ended(process: int, timeout: float) -> bool:
    """Whether a child process ends in time; it stays to be waited for."""
    end, pause = time.monotonic() + timeout, 0.001
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)
    return True


def _end_marked(mark: bytes) -> None:
    """Ends the processes that have the mark in their environment: children that left the runner's process group.

    Where there is no /proc (macOS), those stay.
    """
    for _ in range(_ROUNDS):  # one may start another in the meantime
        found = [int(entry.name) for entry in _processes() if _has(entry, mark)]
        if not found:
            return
        for number in found:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def _processes() -> list[Path]:
    try:
        return [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    except OSError:
        return []


def _has(entry: Path, mark: bytes) -> bool:
    try:
        return mark in (entry / "environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or is another user's
        return False


def _tail(said: IO[bytes]) -> str:
    """The last that a process said."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _TOLD))
    text = said.read().decode(errors="replace").strip()
    return f"; it said: {text}" if text else ""


def by_url(url: str, timeout: float) -> Runner:
    """A runner behind http:// or https://: each batch is a POST of an .npz file, answered by one.

    `timeout` is for the whole exchange, in seconds; redirections are not followed. Raises HwfaultError for another
    kind of URL; calls raise it for an endpoint that cannot be reached, answers with an error or with no .npz file.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise HwfaultError(f"the runner's URL is {url!r}, expected http://... or https://...")
    opener = urllib.request.build_opener(_NoRedirect)

    def post(arrays: Arrays) -> Arrays:
        with tempfile.TemporaryDirectory() as folder:
            question, answer = Path(folder) / "input.npz", Path(folder) / "output.npz"
            write_arrays(question, arrays)
            kind = {"Content-Type": "application/octet-stream"}
            try:
                request = urllib.request.Request(url, question.read_bytes(), kind, method="POST")
                with opener.open(request, timeout=timeout) as response:
                    answer.write_bytes(response.read(LARGEST_ANSWER + 1))
            except urllib.error.HTTPError as error:
                raise HwfaultError(f"the runner {url} answered {error.code} {error.reason}: {_body(error)}") from None
            except TimeoutError:
                raise HwfaultError(_late(f"the runner {url}", timeout)) from None
            except (BadStatusLine, IncompleteRead, LineTooLong) as error:
                reason = str(error) or type(error).__name__
                raise HwfaultError(f"the runner {url} answered in broken HTTP ({reason}); mend the server") from None
            except Exception as error:  # what urllib makes of broken headers and lengths is not told anywhere
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
                raise HwfaultError(f"the runner {url} cannot be asked ({reason}); is it running there?") from None
            return _read(answer, f"the runner {url}")

    # a server that sends a byte now and then would never time out by itself
    return lambda arrays: _within(timeout, f"the runner {url}", lambda: post(arrays))


def _body(error: urllib.error.HTTPError) -> str:
    """What a server says beside an error, as far as it says it."""
    try:
        return error.read(_TOLD).decode(errors="replace").strip()
    except (OSError, HTTPException, ValueError):
        return "(and broke off)"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would be sent on as a GET without its arrays."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _read(path: Path, subject: str) -> Arrays:
    """The arrays of an answer."""
    try:
        size = check_regular(path)
    except (OSError, HwfaultError):
        raise HwfaultError(f"{subject} answered with what is no regular file, expected an .npz file") from None
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):
        unpacked = None
    if max(size, unpacked or 0) > LARGEST_ANSWER:
        raise HwfaultError(f"{subject} answered {max(size, unpacked or 0)} bytes, expected at most {LARGEST_ANSWER}")
    if unpacked is None:
        raise HwfaultError(f"{subject} answered {size} bytes that are no .npz file, as numpy.savez writes it")
    try:
        return read_arrays(path)
    except HwfaultError as error:
        raise HwfaultError(f"{subject} answered with {str(error).replace(f'{path}: ', 'a file: ')}") from None


def _within(timeout: float, subject: str, call: Callable[[], Any]) -> Any:
    """What a call returns; HwfaultError after `timeout` seconds."""
    results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((call(), None))
        except BaseException as error:  # to be raised where the answer is waited for
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=timeout)
    except queue.Empty:
        raise HwfaultError(_late(subject, timeout)) from None
    if error is not None:
        raise error
    return result


def _late(subject: str, timeout: float) -> str:
    return f"{subject} did not answer within {timeout:g} s; give it more time with --runner-timeout, or mend it"
