"""Every implementation of the fault stream behind one signature, so that one test body runs over all of them.

An engine maps (codes of one sample, program, seed, sample, bit_width) to new codes.
"""

from collections.abc import Callable, Sequence

from hwfault.codes import Codes
from hwfault.stream import reference

Engine = Callable[[Codes, Sequence[int], int, int, int], Codes]


def by_reference(codes: Codes, program: Sequence[int], seed: int, sample: int, bit_width: int) -> Codes:
    return reference.inject_codes(codes, program=program, seed=seed, sample=sample, bit_width=bit_width)


ENGINES: dict[str, Engine] = {"reference": by_reference}
