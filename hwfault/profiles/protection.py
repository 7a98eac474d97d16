"""Codes that detect or correct faults in memory words."""

from typing import Literal

from hwfault.profiles.records import Record


class Protection(Record):
    """What guards the words of a memory."""

    kind: Literal["parity", "secded", "tmr"]
    data_bits: int = 64
    on_detected: Literal["zero", "due"] = "zero"
