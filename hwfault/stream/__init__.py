"""The fault stream: which faults strike, as a pure function of (seed, site, sample, word, bit)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hwfault.errors import HwfaultError
from hwfault.stream.tables import site_number

if TYPE_CHECKING:
    from hwfault.stream.reference import Hits

__all__ = ["Hits", "hits", "site_number"]


def hits(
    *, seed: int, site: int, sample: int, words: int, plane: int, probability: float, engine: str = "native"
) -> "Hits":
    """Word positions (int64) and aux (uint32) of the hits of one plane of one sample, in stream order.

    `site` is the 32 bit number of a process; `plane` is a bit (0 to 31) or 63 for words; `engine` is "native" or
    "reference", which agree bit for bit. Aux has 22 bits on a bit plane, 32 on the word plane.
    Raises HwfaultError for arguments outside their range.
    """
    from hwfault.stream import native, reference
    from hwfault.stream.check import check_draw

    check_draw(seed=seed, site=site, words=words, plane=plane)
    engines: dict[str, Callable[..., Hits]] = {"native": native.hits, "reference": reference.hits}
    if engine not in engines:
        raise HwfaultError(f"the engine is {engine!r}, expected one of {', '.join(engines)}")
    return engines[engine](seed=seed, site=site, sample=sample, words=words, plane=plane, probability=probability)


if not TYPE_CHECKING:  # of a name that is not here a type checker shall complain

    def __getattr__(name: str) -> Any:
        # NumPy is imported by what draws, not by whoever asks for the range of a number
        if name == "Hits":
            from hwfault.stream.reference import Hits

            return Hits
        raise AttributeError(f"module 'hwfault.stream' has no attribute {name!r}")
