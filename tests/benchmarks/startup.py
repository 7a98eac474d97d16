"""How long commands take that people wait for: the help, the sites of a graph and of a run, the faults at one."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TO_REACH = {"--help": 0.15, "sites RUN": 0.8, "faults RUN --ber 0.01": 0.8}
"""Seconds."""
_ASKED = ("--help", "run --help", "sites GRAPH", "sites RUN", "faults RUN --ber 0.01")


def main(rounds: int = 9) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # where modules are compiled anew in each process, that is most of what is measured
        os.environ |= {"PYTHONPYCACHEPREFIX": f"{folder}/compiled", "PYTHONDONTWRITEBYTECODE": ""}
        run, graph = Path(folder, "run"), Path(folder, "graph.onnx")
        _hwfault("train", "--epochs", "1", "--out", str(run))
        _hwfault("export", str(run), "--out", str(graph))
        places = {"RUN": str(run), "GRAPH": str(graph)}
        commands = {asked: [places.get(word, word) for word in asked.split()] for asked in _ASKED}
        for words in commands.values():
            _hwfault(*words)  # the first time modules are compiled, and files read from the disk
        seconds: dict[str, list[float]] = {asked: [] for asked in commands}
        for _ in range(rounds):
            for asked, words in commands.items():
                seconds[asked].append(_hwfault(*words))
    print("commands, in seconds (median, fastest)")
    for asked, taken in seconds.items():
        bound = f", to reach {_TO_REACH[asked]:g}" if asked in _TO_REACH else ""
        print(f"    hwfault {asked}: {statistics.median(taken):.2f}, {min(taken):.2f}{bound}")


def _hwfault(*words: str) -> float:
    """Runs a command; the seconds that it took."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hwfault", *words], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
