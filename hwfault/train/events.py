"""TensorBoard's event files, written at once and in this thread, so that a full disk is an error and no deadlock."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwfault.errors import FileError


class Events:
    """One event file in a folder, made when the first figures come; raises FileError where it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def add(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Writes each figure that there is, at a step (an epoch here)."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        try:
            writer = self._opened()
            for name, value in figures.items():
                if value is not None:
                    writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            writer.flush()
        except OSError as error:
            raise FileError(
                f"{self._folder}: TensorBoard's events cannot be written ({error.strerror}); free some space"
            ) from error

    def _opened(self) -> Any:
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter

            self._folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"), filename_suffix=f".{os.getpid()}")
        return self._writer
