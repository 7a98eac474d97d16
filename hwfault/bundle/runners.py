"""Other engines, and real accelerators, in onnxruntime's place: a function, a command line, an HTTP endpoint.

Each is called with a batch's inputs by name and answers as hwfault.bundle.answer says. What they answer is trusted in
nothing: arrays are read without unpickling, and their sizes are checked before memory is taken.
"""

import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from hwfault.arrays import read_arrays, write_arrays
from hwfault.bundle.answer import Runner
from hwfault.errors import HwfaultError
from hwfault.own_code import named

Arrays = dict[str, NDArray[Any]]

LARGEST_ANSWER = 1 << 30
"""The most bytes of an answer, packed and unpacked."""
_TOLD = 600


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

    It runs in a process group of its own, which is ended after `timeout` seconds. Raises HwfaultError for an empty
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
                if code or not answer.exists():
                    wrong = f"ended with exit code {code}" if code else f"wrote no {answer.name}, its last argument"
                    raise HwfaultError(f"the runner {words[0]!r} {wrong}{_tail(said)}")
            return _read(answer, f"the runner {words[0]!r}")

    return runner


def _execute(words: list[str], said: IO[bytes], timeout: float) -> int:
    """The exit code of a process; it and its children are ended when the time is over."""
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    except OSError as error:
        raise HwfaultError(f"the runner {words[0]!r} cannot be run ({error.strerror}); expected a program") from None
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise HwfaultError(_late(f"the runner {words[0]!r}", timeout) + _tail(said)) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
                said = error.read(_TOLD).decode(errors="replace").strip()
                raise HwfaultError(f"the runner {url} answered {error.code} {error.reason}: {said}") from None
            except TimeoutError:
                raise HwfaultError(_late(f"the runner {url}", timeout)) from None
            except (OSError, HTTPException, ValueError) as error:
                reason = getattr(error, "reason", error)
                raise HwfaultError(f"the runner {url} cannot be asked ({reason}); is it running there?") from None
            return _read(answer, f"the runner {url}")

    # a server that sends a byte now and then would never time out by itself
    return lambda arrays: _within(timeout, f"the runner {url}", lambda: post(arrays))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would be sent on as a GET without its arrays."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _read(path: Path, subject: str) -> Arrays:
    """The arrays of an answer."""
    size = path.stat().st_size
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
