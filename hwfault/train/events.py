"""TensorBoard's event files, written at once and in this thread, so that a full disk is an error and no deadlock."""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwfault.errors import FileError


class Events:
    """The event file of this process in a folder, which is made when the first figures come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"

    def add(self, step: int, figures: Mapping[str, float | None]) -> None:
        """Writes each figure that there is, at a step (an epoch here); raises FileError where that cannot be done."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        now = time.time()
        events = []
        for name, value in figures.items():
            if value is not None:
                events.append(Event(wall_time=now, step=step, summary=scalar(name, value)))
        try:
            self._folder.mkdir(exist_ok=True)
            if not self._path.exists():
                events.insert(0, Event(wall_time=now, file_version="brain.Event:2"))
            with self._path.open("ab") as file:
                file.write(b"".join(map(_record, events)))
        except OSError as error:
            raise FileError(f"{self._path}: cannot be written ({error.strerror or error}); free some space") from error


def _record(event: Any) -> bytes:
    """An event as TFRecord: its length, its bytes, and a checksum after each."""
    from tensorboardX.record_writer import masked_crc32c

    content: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    of_length = struct.pack("<I", masked_crc32c(length))
    of_content = struct.pack("<I", masked_crc32c(content))
    return length + of_length + content + of_content
