"""When the trials of a campaign are looked at: at doubling numbers of them, and with which confidence each time."""

from typing import NamedTuple

from hwfault.campaigns.statistics.estimates import check_confidence
from hwfault.errors import HwfaultError

LEAST_TRIALS = 20
"""Before so many trials there is no look, and no Student's interval."""


class Looks(NamedTuple):
    """The looks at a mean: after 20, 40, 80, ... trials and after `max_trials`, where it ends at the latest.

    They begin at `first`.

    All intervals of one campaign are true at once with `confidence`, as each look has a part of the error (Bonferroni):
    the campaign may stop at any of them for whatever reason. Looks are planned from `max_trials`; who raises it later
    plans other ones, and what had been seen by then was seen under the first plan.
    """

    max_trials: int
    confidence: float
    first: int = LEAST_TRIALS

    @classmethod
    def plan(cls, max_trials: int, confidence: float, first: int = LEAST_TRIALS) -> "Looks":
        """The looks of a campaign of at most `max_trials`; raises HwfaultError for less than one, or no confidence."""
        check_confidence(confidence)
        if max_trials < 1:
            raise HwfaultError(f"given {max_trials} trials at most, expected at least one")
        return cls(max_trials, confidence, max(first, LEAST_TRIALS))

    @property
    def numbers(self) -> tuple[int, ...]:
        """After how many trials one looks, in order; only at the end where that is before 20 trials."""
        numbers = []
        number = self.first
        while number < self.max_trials:
            numbers.append(number)
            number *= 2
        return (*numbers, self.max_trials)

    @property
    def alpha(self) -> float:
        """The chance of error that each look may have.

        That of a campaign ended between two looks by something other than its results (the clock) is the same: it takes
        the place of those that were planned and never come.
        """
        return (1 - self.confidence) / len(self.numbers)

    def next_after(self, trials: int) -> int | None:
        """The next number of trials at which one looks; None after the last."""
        return next((number for number in self.numbers if number > trials), None)

    def last_until(self, trials: int) -> int | None:
        """The last look that so many trials have reached; None before the first."""
        return max((number for number in self.numbers if number <= trials), default=None)
