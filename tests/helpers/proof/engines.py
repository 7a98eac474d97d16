"""Engines that stand in onnxruntime's place: functions for --runner, and a program for --runner-command.

As a program: `python engines.py MODE GRAPH... INPUT.npz OUTPUT.npz`.
"""

import sys
import time
from pathlib import Path

import numpy as np


def emulated(arrays, folder):
    """What the bundle's own graphs answer, run by onnxruntime without hwfault's session."""
    import onnxruntime

    from hwfault import onnxruntime_library

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_library())
    graph = "faulted.onnx" if "hwfault_seed" in arrays else "clean.onnx"
    session = onnxruntime.InferenceSession(str(Path(folder) / graph), options)
    return session.run(None, arrays)[0]


class NoBoard(Exception):  # noqa: N818 the tests look for one line that says Error
    """What a driver raises."""


def raises(arrays):
    raise NoBoard("it is on fire")


def hangs(arrays):
    time.sleep(60)


def wrong_shape(arrays):
    return np.zeros((len(arrays["input"]) + 1, 5), np.float32)


def words(arrays):
    return {"output": np.array(["cat"])}


def nothing(arrays):
    return {}


def unknown(arrays):
    return {"ouput": np.zeros(3)}


NOT_A_FUNCTION = 3

if __name__ == "__main__":
    mode, folder, question, answer = sys.argv[1:]
    if mode == "fails":
        sys.exit("no board is connected")
    if mode == "hangs":
        print("waiting for the board", flush=True)
        time.sleep(60)
    if mode == "garbage":
        Path(answer).write_bytes(b"not an archive")
    if mode == "pickle":
        np.savez(answer, output=np.array([{"a": 1}], dtype=object))
    if mode == "right":
        with np.load(question) as arrays:
            np.savez(answer, output=emulated({name: arrays[name] for name in arrays.files}, folder))
