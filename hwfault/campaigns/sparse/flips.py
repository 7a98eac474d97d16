"""Single-bit flips of weights, biases and activations: which there are, and as the native library takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.campaigns.sparse.description import Description, WeightSite
from hwfault.codes import integers
from hwfault.errors import HwfaultError, PlanError, nearest
from hwfault.stream.native.network import NativeFlips, addend_flips, value_flips, weight_flips


@dataclass(frozen=True)
class Flips:
    """Flips in the order (site, word, bit), or in any other if they were chosen so; arrays of one length.

    `site` indexes `names`, `word` the words of the site in C order, and `bit` 0 is the least
    significant one of the code word of the site's own width: the numbers that the fault `cells` takes.
    """

    names: tuple[str, ...]
    site: NDArray[np.int32]
    word: NDArray[np.int64]
    bit: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.word)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> "Flips":
        """Some of them: a slice, or an array of indices or booleans."""
        return Flips(self.names, self.site[chosen], self.word[chosen], self.bit[chosen])

    def cell(self, index: int) -> dict[str, str | int]:
        """A flip as the fault `cells` names it."""
        name = self.names[int(self.site[index])]
        return {"site": name, "word": int(self.word[index]), "bit": int(self.bit[index]), "kind": "flip"}


def all_flips(description: Description, sites: Sequence[str] | None = None) -> Flips:
    """Every flip of the sites (None: all weights), which come in the network's order: weights, biases, activations.

    Raises PlanError for a name that is no such site, and for a site whose flips cannot be carried.
    """
    names = tuple(description.sites) if sites is None else _in_order(description, sites)
    if sites is None and description.refused:
        _refuse(description, next(iter(description.refused)))
    if not names:
        raise PlanError("the network has no site of weights to flip, expected at least one quantized layer")
    parts = []
    for number, name in enumerate(names):
        words, bits = _size(description, name)
        word = np.repeat(np.arange(words, dtype=np.int64), bits)
        bit = np.tile(np.arange(bits, dtype=np.int32), words)
        parts.append((np.full(words * bits, number, np.int32), word, bit))
    site_numbers, words_of, bits_of = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Flips(names, site_numbers, words_of, bits_of)


def _in_order(description: Description, sites: Sequence[str]) -> tuple[str, ...]:
    known = [*description.sites, *description.biases, *description.values]
    for name in sites:
        if name in description.refused or name in description.refused_others:
            _refuse(description, name)
        if name not in known:
            raise PlanError(f"{name!r} is no site of weights, biases or activations; {nearest(name, known)}")
    return tuple(name for name in known if name in sites)


def _size(description: Description, name: str) -> tuple[int, int]:
    """How many words a site has, and of how many bits."""
    if name in description.values:
        site = description.values[name]
        return site.words, site.format.bit_width
    if name in description.biases:
        bits, words = description.biases[name].addends.shape
        return words, bits
    return len(description.sites[name].codes), description.sites[name].format.bit_width


def _refuse(description: Description, name: str) -> None:
    why = (description.refused | description.refused_others)[name]
    raise PlanError(f"flips of {name!r} cannot be carried by the sparse engine: {why}")


def flips_of(description: Description, site: str, words: ArrayLike, bits: ArrayLike) -> Flips:
    """Chosen flips of one site: words and bits of one length; raises PlanError for what the site does not have."""
    names = _in_order(description, [site])
    flips = Flips(names, np.zeros(np.size(words), np.int32), np.asarray(words, np.int64), np.asarray(bits, np.int32))
    check_flips(description, flips)
    return flips


def changes_of(description: Description, flips: Flips) -> NDArray[np.int32]:
    """What each flip adds to the integer of its weight.

    Raises PlanError for a site, word or bit that there is not.
    """
    if not len(flips.site) == len(flips.word) == len(flips.bit):
        raise HwfaultError(
            f"flips of {len(flips.site)} sites, {len(flips.word)} words and {len(flips.bit)} bits, expected one of each"
        )
    changes = np.zeros(len(flips), np.int32)
    for number, name in enumerate(flips.names):
        rows = np.flatnonzero(flips.site == number)
        if not len(rows):
            continue
        _in_order(description, [name])
        site = description.sites[name]
        word, bit = flips.word[rows], flips.bit[rows]
        _check_within(name, "word", word, len(site.codes))
        _check_within(name, "bit", bit, site.format.bit_width)
        changes[rows] = _change(site, word, bit)
    return changes


def _change(site: WeightSite, word: NDArray[np.int64], bit: NDArray[np.int32]) -> NDArray[np.int64]:
    before = site.codes[word]
    after = before ^ (np.uint32(1) << bit.astype(np.uint32))
    return integers(after, site.format) - integers(before, site.format)


def check_flips(description: Description, flips: Flips) -> None:
    """Raises PlanError for a site, word or bit that there is not, and for flips that cannot be carried."""
    if not len(flips.site) == len(flips.word) == len(flips.bit):
        raise HwfaultError(
            f"flips of {len(flips.site)} sites, {len(flips.word)} words and {len(flips.bit)} bits, expected one of each"
        )
    for number in range(len(flips.names)):
        rows = np.flatnonzero(flips.site == number)
        if len(rows):
            native_flips(description, flips, rows)


def native_flips(description: Description, flips: Flips, rows: slice | NDArray[Any]) -> NativeFlips:
    """Some flips of one site, of weights, biases or activations; raises PlanError for those that there are not."""
    some = flips[rows]
    name = some.names[int(some.site[0])]
    _in_order(description, [name])
    if name in description.sites:
        return weight_flips(description.sites[name].node, some.word, changes_of(description, some))
    words, bits = _size(description, name)
    _check_within(name, "word", some.word, words)
    _check_within(name, "bit", some.bit, bits)
    if name in description.biases:
        bias = description.biases[name]
        return addend_flips(bias.node, some.word, bias.addends[some.bit, some.word])
    site = description.values[name]
    return value_flips(site.node, site.step, site.format, site.elements(some.word), some.bit)


def _check_within(name: str, what: str, given: NDArray[Any], end: int) -> None:
    wrong = given[(given < 0) | (given >= end)]
    if len(wrong):
        raise PlanError(f"a flip of {name!r} names the {what} {wrong[0]}, expected 0 to {end - 1}")
