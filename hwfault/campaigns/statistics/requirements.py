"""What a study may demand of a number, and whether an interval settles it."""

import math
import re
from typing import Any, Literal

from pydantic import field_validator

from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.errors import HwfaultError, ModelError
from hwfault.records import Record

_TEXT = re.compile(r"\s*([<>])\s*(\S+)\s*")


class Requirement(Record):
    """That a number lies below a limit, or above it: "< 1e-4", "> 0.9"."""

    side: Literal["<", ">"]
    limit: float

    @field_validator("limit")
    @classmethod
    def _know_the_limit(cls, limit: float) -> float:
        if not math.isfinite(limit):
            raise ValueError(f"the limit is {limit}, expected a finite number")
        return limit

    @classmethod
    def read(cls, text: Any) -> "Requirement":
        """The requirement that a text such as "< 1e-4" states; raises ModelError for any other text."""
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        try:
            if found is None:
                raise ValueError
            limit = float(found[2])
        except ValueError:
            raise ModelError(
                f"the requirement is {text!r}, expected '<' or '>' and a number, such as '< 1e-4' or '> 0.9'"
            ) from None
        return cls(side="<" if found[1] == "<" else ">", limit=limit)

    def __str__(self) -> str:
        return f"{self.side} {self.limit:g}"

    def check_rate(self) -> None:
        """Raises HwfaultError where no rate could both meet and miss it."""
        if not 0 < self.limit < 1:
            raise HwfaultError(f"the requirement is '{self}', but a rate lies between 0 and 1: give a limit inside")

    def judge(self, estimate: Estimate) -> bool | None:
        """Whether an estimate meets it: True, False, or None where its interval holds the limit."""
        low, high = estimate.ends or (estimate.value, estimate.value)
        below, above = high < self.limit, low > self.limit
        if estimate.ends is None:
            # an exact number is on one side or the other: one that equals the limit does not meet it
            return below if self.side == "<" else above
        if not below and not above:
            return None
        return below if self.side == "<" else above
