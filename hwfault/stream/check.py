"""Ranges of the numbers that name a draw."""

from hwfault.errors import HwfaultError
from hwfault.stream.tables import WORD_PLANE


def check_seed(seed: int) -> int:
    """The seed, if it is an unsigned 64 bit integer; raises HwfaultError otherwise."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise HwfaultError(f"the seed is {seed!r}, expected an integer from 0 to 2^64 - 1")
    return seed


def signed64(seed: int) -> int:
    """The int64 with the seed's bits, as tensors and graphs carry it."""
    return seed - (1 << 64) if seed >> 63 else seed


def check_draw(*, seed: int, site: int, words: int, plane: int) -> None:
    """Raises HwfaultError unless the numbers name a plane of a sample."""
    check_seed(seed)
    if not 0 <= site < 1 << 32:
        raise HwfaultError(f"the site number is {site!r}, expected 0 to 2^32 - 1 (hwfault.stream.site_number gives it)")
    if not 0 <= words <= 1 << 36:
        raise HwfaultError(f"words is {words!r}, expected 0 to 2^36, the words that 26 bits of block number reach")
    if not (0 <= plane < 32 or plane == WORD_PLANE):
        raise HwfaultError(f"plane is {plane!r}, expected a bit from 0 to 31, or {WORD_PLANE} for words")
