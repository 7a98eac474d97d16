"""The fault stream: which faults strike, as a pure function of (seed, site, sample, word, bit)."""

from collections.abc import Callable

from hwfault.errors import HwfaultError
from hwfault.stream.reference import Hits
from hwfault.stream.tables import site_number

__all__ = ["Hits", "hits", "site_number"]


def hits(
    *, seed: int, site: int, sample: int, words: int, plane: int, probability: float, engine: str = "native"
) -> Hits:
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
