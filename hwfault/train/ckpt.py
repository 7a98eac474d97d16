"""Lightning's checkpoints as files that appear whole or not at all, and that run no code when they are read."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from hwfault.errors import FileError
from hwfault.files import write_atomically
from hwfault.inputs import open_regular

_KEYS = {"phase", "done", "world", "counters", "faults", "rates", "totals", "history"}
"""What a run's state says of itself beside what Lightning and the network do."""


class AtomicCheckpoints(CheckpointIO):
    """Writes a checkpoint in the old one's place only when it is complete on the disk; reads tensors and plain data."""

    problem: FileError | None = None
    """Why the latest one could not be written, with the old file intact: raised here, other ranks would wait for us."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Leaves an error in `problem`."""
        self.problem = None
        content = io.BytesIO()
        torch.save(checkpoint, content)  # not into the file: torch hides which errors are the disk's
        try:
            write_atomically(path, content.getvalue())
        except FileError as error:
            self.problem = error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint, on the CPU; raises FileError for a file that is none."""
        return read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU: tensors and plain data; raises FileError for a file that is none."""
    try:
        with open_regular(path) as file:
            whole = file.read()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); expected a run's checkpoint") from None
    try:
        content = torch.load(io.BytesIO(whole), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch and the zip reader raise almost anything
        reason = type(error).__name__  # torch's own text advises to load the file without a check
        raise FileError(f"{path}: not a whole checkpoint of hwfault train ({reason}); start anew") from None
    if not isinstance(content, dict) or getattr(content.get("hwfault"), "keys", set)() != _KEYS:
        raise FileError(f"{path}: not a checkpoint of hwfault train; start anew")
    return content
