"""What an observer of an injection is shown of a site."""

import inspect
from collections.abc import Callable

from torch import Tensor

from hwfault.errors import HwfaultError, describe_kind
from hwfault.injection.clock import Clock
from hwfault.injection.strike import Observed, Strike

Observer = Callable[..., object]
"""`observe(site name, before, after, scale, zero point)`; parameters `codes_before` and `codes_after` may follow."""

Rules = tuple[Clock, Tensor, Tensor, Tensor, bool]
"""What a strike is given beside the values: clock, seed, scale, zero point, straight_through."""


class Watcher:
    """Strikes a site and shows its observer what became of it; raises HwfaultError for one that cannot be called."""

    def __init__(self, observe: Observer) -> None:
        if not callable(observe):
            expected = "a function (site name, before, after, scale, zero point)"
            raise HwfaultError(f"the observer is {describe_kind(observe)}, expected {expected}")
        self._observe, self._shows_codes = observe, takes_codes(observe)

    def __call__(self, name: str, value: Tensor, strike: Strike | None, idle: Strike, rules: Rules) -> Tensor:
        """The values with faults, never overwritten, as the observer sees those before, too.

        Without a `strike` nothing changes; `idle` is the site's all the same, which knows its words.
        """
        _, _, scale, zero_point, _ = rules
        if not self._shows_codes:
            faulty = value if strike is None else strike(value, *rules)
            self._observe(name, *(t.detach() for t in (value, faulty, scale, zero_point)))
            return faulty
        if strike is None:
            codes = idle.codes(value, scale, zero_point)
            seen = Observed(value, codes, codes)
        else:
            seen = strike.observed(value, *rules)
        tensors = (t.detach() for t in (value, seen.values, scale, zero_point))
        self._observe(name, *tensors, codes_before=seen.before, codes_after=seen.after)
        return seen.values


def takes_codes(observe: Observer) -> bool:
    """Whether an observer has parameters for the codes before and after."""
    try:
        parameters = inspect.signature(observe).parameters
    except (TypeError, ValueError):  # a function that does not tell its parameters
        return False
    return {"codes_before", "codes_after"} <= parameters.keys()
