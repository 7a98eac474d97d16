"""Opens every graph of a folder in every way, and prints a line of JSON for each: a process that may crash or run out.

Arguments: the folder; then ways, by name. The last line that was printed tells what a crash followed. Memory is what is
taken beyond that after a graph that is good was opened in all ways, so that all imports are done.
"""

import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from hwfault.cli import main as command_line
from hwfault.errors import HwfaultError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.read import sites as of_graph
from hwfault.graph.run.session import load_model, run, session
from tests.fuzz.cases import plain_session
from tests.fuzz.graphs import GRAPHS, fitting
from tests.process import mapped_memory, peak_memory

MEMORY = 12 << 30


def plain(path: Path) -> None:
    """onnxruntime with the library, and nothing else of hwfault."""
    made = plain_session(str(path))
    made.run(None, fitting(made))


def ran(path: Path) -> None:
    """The API: a session, and a run."""
    made = session(path, threads=1)
    run(made, {name: x for name, x in fitting(made).items() if not name.startswith("hwfault_")})


def sites(path: Path) -> None:
    """What lists a graph's sites."""
    of_graph.sites(load_model(path))


def carried(path: Path) -> None:
    """What replay does first."""
    plan_of(load_model(path))


def cli(*arguments: str) -> None:
    """A command, which must say one error and exit with code 1."""
    result = CliRunner().invoke(command_line, arguments, prog_name="hwfault")
    if result.exit_code == 0:
        return
    if result.exit_code != 1 or not isinstance(result.exception, SystemExit) or "\nError: " in result.stderr[1:]:
        raise RuntimeError(f"exit code {result.exit_code}, {result.exception!r}: {result.stderr}")
    raise HwfaultError(" ".join(result.stderr.partition("Error: ")[2].split()))


def cli_run(path: Path) -> None:
    """`hwfault run` on whatever the graph says it takes."""
    np.save(path.with_suffix(".npy"), np.ones((2, 20), np.float32))
    cli("run", str(path), "--input", str(path.with_suffix(".npy")))


def cli_sites(path: Path) -> None:
    """`hwfault sites`."""
    cli("sites", str(path))


def answer(way: Any, path: Path) -> dict[str, str]:
    """What came of it: the error's class and text, if there was one."""
    try:
        way(path)
    except HwfaultError as error:
        return {"error": "HwfaultError", "text": str(error)}
    except Exception as error:
        return {"error": type(error).__module__.partition(".")[0] + "." + type(error).__name__, "text": str(error)}
    return {"error": "", "text": ""}


def main() -> None:
    """Answers for all graphs and ways named."""
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good.onnx"
        good.write_bytes(GRAPHS["bits"]().SerializeToString())
        for name in sys.argv[2:]:
            answer(globals()[name], good)
    most, before = mapped_memory() + MEMORY, peak_memory()
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
        for name in sys.argv[2:]:
            print(json.dumps({"graph": path.stem, "way": name, "begins": True}), flush=True)
            found = answer(globals()[name], path)
            taken = peak_memory() - before
            print(json.dumps({"graph": path.stem, "way": name, "taken": taken} | found), flush=True)


if __name__ == "__main__":
    main()
