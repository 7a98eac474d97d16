"""What was recorded, parsed: the codes of each run of each site, and the outputs."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat, Codes, decode, integers
from hwfault.errors import FileError, PlanError
from hwfault.graph.read.versions import OLD
from hwfault.program.batch_axes import from_rows, in_rows
from hwfault.program.processes import Site
from hwfault.proof.manifest import (
    CLEAN,
    INPUT,
    INPUTS,
    LABEL,
    MANIFEST,
    NO_NUMBERS,
    Integers,
    RecordedInput,
    RecordedSite,
    input_tensor,
    seed_file,
    tensor,
)
from hwfault.proof.sides import Side
from hwfault.proof.storage import Bundle, Tensors, array

Array = NDArray[Any]


class Inputs:
    """The samples of a bundle, by the names of its graphs' inputs, and their labels, where it has some."""

    def __init__(self, bundle: Bundle) -> None:
        where, n = f"{bundle.path}: {INPUTS}", bundle.manifest.samples
        tensors = bundle.tensors(INPUTS)
        self._values: dict[str, Array] = {}
        if bundle.manifest.inputs is None:
            self._values[INPUT] = array(tensors, INPUT, where, "f")
        for entry in bundle.manifest.inputs or ():
            self._values[entry.name] = _input(tensors, entry, bundle, where)
        self.labels = array(tensors, LABEL, where, "iu") if LABEL in tensors else None
        found = [*self._values.values(), *([] if self.labels is None else [self.labels])]
        plain = bundle.manifest.inputs is not None or self._values[INPUT].dtype == np.float32
        if any(values.shape[:1] != (n,) for values in found) or not plain:
            shapes = [values.shape for values in found]
            raise FileError(f"{where}: tensors of the shapes {shapes}, expected {n} samples of float32")

    def rows(self, chosen: slice) -> dict[str, Array]:
        """Some samples of each input."""
        return {name: values[chosen] for name, values in self._values.items()}


def _input(tensors: Tensors, entry: RecordedInput, bundle: Bundle, where: str) -> Array:
    """The samples of an input; raises FileError unless they are what the manifest says."""
    name = input_tensor(entry.name, len(bundle.manifest.inputs or ()))
    values = array(tensors, name, where)
    expected = (bundle.manifest.samples, *entry.shape)
    if values.shape != expected or values.dtype != np.dtype(entry.dtype):
        raise FileError(
            f"{where}: the tensor {name!r} is {values.dtype} of the shape {values.shape}, {entry.dtype} of the shape "
            f"{expected} by {MANIFEST}; get the bundle anew"
        )
    return values


class Facts(Protocol):
    """What must be known of a record besides its tensors; a bundle's manifest says it."""

    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def spec(self) -> str: ...
    @property
    def sites(self) -> Sequence[RecordedSite]: ...


class Batch(NamedTuple):
    """A batch of a record: the rows of its samples, the row of a parameter, and the number of its first sample."""

    samples: slice
    number: int
    first_sample: int

    @property
    def size(self) -> int:
        """How many samples it has."""
        return int(self.samples.stop - self.samples.start)

    def rows(self, site: Site) -> slice:
        """The rows of a site."""
        return self.samples if site.batched else slice(self.number, self.number + 1)

    def row(self, site: Site) -> int:
        """The number of the first row of a site, counted through all of the run."""
        return self.first_sample if site.batched else self.number


class Expected:
    """The record of one run, clean or under a seed; every tensor is checked against the facts when it is taken.

    Codes are (rows, words): a row is a sample of a batched site, a batch for a parameter. `own` are the tensors of the
    run, and where these do not have one it is that of the `clean` run. `where` they lie errors say.
    """

    def __init__(self, facts: Facts, own: Tensors, clean: Tensors, where: str) -> None:
        self.facts, self.where = facts, where
        self._own, self._clean = own, clean
        self._integers = {entry.site.name: entry.integers for entry in facts.sites}
        self.output = array(self._own, "output", where, "f")
        self.prediction = array(self._own, "prediction", where)
        n = facts.samples
        if self.output.shape[:1] != (n,) or self.prediction.shape[:1] != (n,):
            raise FileError(f"{where}: outputs of the shape {self.output.shape}, expected {n} samples")

    @classmethod
    def of_bundle(cls, bundle: Bundle, clean: Tensors, seed: int | None) -> Self:
        """The record of a bundle's run; `clean` are the tensors of the clean one."""
        file = CLEAN if seed is None else seed_file(seed)
        own = clean if seed is None else bundle.tensors(file)
        return cls(bundle.manifest, own, clean, f"{bundle.path}: {file}")

    @property
    def batches(self) -> list[Batch]:
        """The batches in which the run was recorded."""
        n, size = self.facts.samples, self.facts.batch_size
        begins = range(0, n, size)
        return [Batch(slice(begin, min(begin + size, n)), i, begin) for i, begin in enumerate(begins)]

    @property
    def sites(self) -> list[RecordedSite]:
        """The sites that the run recorded: accumulators that nothing strikes only where they are sums of integers."""
        found = [entry for entry in self.facts.sites if entry.site.kind != "accumulator" or self.holds(entry.site)]
        if self._own is not self._clean:
            return found
        return [entry.model_copy(update={"site": entry.clean or entry.site}) for entry in found]

    def holds(self, site: Site) -> bool:
        """Whether the run recorded a site; a parameter that does not change need not be in each batch."""
        known = tensor(site.name, 0, "codes" if self._own is self._clean else "at")
        return known in self._own

    def integers_of(self, site: Site) -> Integers | None:
        """The type of a site's words where they are integers themselves; None for values on a grid."""
        return self._integers.get(site.name)

    def grid(self, site: Site, call: int) -> tuple[Array, Array]:
        """Scale and zero point; integers have none, which is 1 and 0."""
        if self.integers_of(site) is not None:
            return np.ones((), np.float32), np.zeros((), np.float32)
        scale, zero_point = (self._either(tensor(site.name, call, kind), "f") for kind in ("scale", "zero_point"))
        if not (np.isfinite(scale).all() and np.isfinite(zero_point).all()):
            raise FileError(f"{self.where}: scale or zero point of {site.name!r} are not finite")
        if self.facts.spec == OLD and (zero_point != np.rint(zero_point)).any():
            raise FileError(
                f"{self.where}: {site.name!r} has a zero point that is no integer, for which {OLD!r}, as the manifest "
                "says, has no codes; export the bundle anew"
            )
        return scale, zero_point

    def codes(self, site: Site, call: int, rows: slice) -> tuple[Codes, Codes]:
        """The codes of some rows before and after the faults; no memory is taken for the others."""
        own = tensor(site.name, call, "before")
        name = own if own in self._own else tensor(site.name, call, "codes")
        before = self._checked(site, self._either(name, "u"), name)
        every = self.facts.samples if site.batched else -(-self.facts.samples // self.facts.batch_size)
        if len(before) not in (every, every if site.batched else 1):
            raise FileError(f"{self.where}: the tensor {name!r} has {len(before)} rows, expected {every}")
        whole = np.broadcast_to(before, (every, before.shape[1]))
        if self._own is self._clean:
            return whole[rows], whole[rows]
        at, codes = (array(self._own, tensor(site.name, call, what), self.where, "u") for what in ("at", "after"))
        if at.ndim != 1 or codes.shape != at.shape or (at.size and int(at.max()) >= whole.size):
            raise FileError(f"{self.where}: the faults of {site.name!r} are not at words of the site")
        after = whole[rows].copy()
        places = at.astype(np.int64) - (rows.start or 0) * whole.shape[1]
        here = (places >= 0) & (places < after.size)
        after.ravel()[places[here]] = self._checked(site, codes[None], name)[0, here]
        return whole[rows], after

    def side(self, site: Site, call: int, rows: slice, shape: tuple[int, ...]) -> Side:
        """What was recorded for some rows as one side of a comparison with values of the shape; raises PlanError."""
        scale, zero_point = self.grid(site, call)
        fmt = CodeFormat(site.bit_width, site.signed)
        kind = np.float64 if scale.dtype == np.float64 else np.float32
        both = self.codes(site, call, rows)
        samples = site.batch_axis.samples_in(shape, site.name) if site.batched else 1
        if both[0].size != math.prod(shape) or samples != len(both[0]):
            raise PlanError(
                f"the site {site.name!r} has values of the shape {list(shape)} in the graph, but {both[0].shape[1]} "
                f"words of {len(both[0])} samples were recorded; expected the graph of the recorded network"
            )
        held = self.integers_of(site)
        try:
            lying = [from_rows(codes, shape, site.batched, site.batch) for codes in both]
            if held is None:
                words = [decode(codes, scale, zero_point, fmt, kind) for codes in lying]
            else:
                words = [integers(codes, fmt).astype(held) for codes in lying]
        except ValueError:
            raise FileError(f"{self.where}: scale or zero point of {site.name!r} do not fit its codes") from None
        if held is None:
            words = [self._with_no_numbers(site, call, rows, side) for side in words]
        return Side(site, [*words, scale, zero_point], (lying[0], lying[1]))

    def _with_no_numbers(self, site: Site, call: int, rows: slice, values: Array) -> Array:
        """The values of a site's tensor, with what was recorded of words that held no number."""
        words = in_rows(values, site.batched, site.batch)
        self._put_no_numbers(site, call, rows, words)
        return from_rows(words, values.shape, site.batched, site.batch)

    def no_numbers(self, site: Site, call: int, rows: slice, shape: tuple[int, ...]) -> Array:
        """What words (rows, words) held that held no number, and 0 in all others; no fault strikes one."""
        values = np.zeros(shape)
        if self.integers_of(site) is None:  # an integer is a number always
            self._put_no_numbers(site, call, rows, values)
        return values

    def _put_no_numbers(self, site: Site, call: int, rows: slice, values: Array) -> None:
        """Writes into values (rows, words) what was recorded of words that held no number."""
        places, found = (tensor(site.name, call, NO_NUMBERS + suffix) for suffix in ("_at", ""))
        held = self._own if site.batched or places in self._own else self._clean
        if places not in held:
            return
        at, numbers = array(held, places, self.where, "u"), array(held, found, self.where, "f")
        if at.ndim != 1 or numbers.shape != at.shape or np.isfinite(numbers).any():
            raise FileError(f"{self.where}: {places!r} and {found!r} are not places and values that are not finite")
        row, word = np.divmod(at.astype(np.int64), values.shape[1])
        here = (row >= (rows.start or 0)) & (row < (rows.start or 0) + len(values))
        values[row[here] - (rows.start or 0), word[here]] = numbers[here]

    def _checked(self, site: Site, codes: Array, name: str) -> Codes:
        wide = codes.astype(np.uint32)
        if codes.ndim != 2 or codes.dtype.itemsize > 4 or (codes.size and int(wide.max()) >> site.bit_width):
            raise FileError(f"{self.where}: {name!r} holds no codes of {site.bit_width} bits, (samples, words)")
        return wide

    def _either(self, name: str, kinds: str) -> Array:
        return array(self._own if name in self._own else self._clean, name, self.where, kinds)
