"""A site that the stream strikes, on the CPU: its program is parsed once, and how its tensors lie is kept.

Nothing is arranged or converted: samples are struck where they lie, whichever axis is theirs, and scales are read in
their own type.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hwfault.program.batch_axes import PLAIN, BatchAxis
from hwfault.stream.check import batch_and_words, words_sharing
from hwfault.stream.mechanism import StreamOperands
from hwfault.stream.native import ParsedSite, Shape, Strike, calls, fail, strides
from hwfault.torch_ops.on_cpu import DTYPES, Left, dtype_number

_KEPT_SHAPES = 64
_ALL_BITS = 0xFFFFFFFFFFFFFFFF


class StreamSite:
    """What strikes and zeroes the tensors of one site; `axis` is that of their samples, None for axis 0.

    A tensor with another axis has one scale and one zero point.
    """

    def __init__(self, parsed: ParsedSite, axis: BatchAxis | None = None) -> None:
        self.parsed, self.axis = parsed, axis
        self._address = parsed.address
        self._shapes: dict[Any, Any] = {}
        self._seed: tuple[Tensor | None, int] = (None, 0)

    def __reduce__(self) -> Any:
        """A copy has what it keeps of its own."""
        return StreamSite, (self.parsed, self.axis)

    def strike(self, x: Tensor, out: Tensor, o: StreamOperands[Tensor], left: Left | None) -> None:
        """Writes x with its faults to out, which may be x unless the program has late bits.

        Both lie alike, without gaps, in whichever order of their axes. `left` is told how many words were not struck
        because they hold no number.
        """
        addresses = x.data_ptr(), out.data_ptr()
        if x.is_contiguous():
            self._call(calls().strike, x, addresses, o, left)
        else:
            self._call(calls().strike_strided, x, (strides(tuple(x.shape), x.stride()), *addresses), o, left)

    def zero(self, gradient: Tensor, out: Tensor, stored: Tensor | None, o: StreamOperands[Tensor]) -> None:
        """Writes the gradient with zeros at faulty words to out; `stored` are the values before, where these decide.

        All are contiguous.
        """
        values = None if stored is None else stored.data_ptr()
        self._call(calls().zero, gradient, (gradient.data_ptr(), out.data_ptr(), values), o)

    def faults(self, batch: int, seed: Tensor, samples: Tensor) -> Strike:
        """The faults of so many samples for a C function that strikes in a pass of its own; it holds no tensor."""
        return Strike(self._address, self._seed_of(seed), samples.data_ptr(), batch)

    def _call(
        self, function: Any, x: Tensor, addresses: tuple[Any, ...], o: StreamOperands[Tensor], *more: Any
    ) -> None:
        """A C function of the site, given the addresses of tensors that lie as x does, and what goes before them."""
        scale, zero_point, samples = _readable(o.scale), _readable(o.zero_point), o.samples
        grid = scale.data_ptr(), zero_point.data_ptr()
        drawn = self._seed_of(o.seed), samples.data_ptr(), torch.get_num_threads()
        shape = self._shape(x, samples, scale, zero_point)
        if function(self._address, shape, *addresses, *grid, *drawn, *more) < 0:
            fail()

    def _seed_of(self, seed: Tensor) -> int:
        """The number in a tensor that nobody writes to, which most calls share with the one before."""
        known, number = self._seed
        if known is not seed:
            number = int(seed.item()) & _ALL_BITS
            self._seed = (seed, number)
        return number

    def _shape(self, x: Tensor, samples: Tensor, scale: Tensor, zero_point: Tensor) -> Any:
        """A pointer to how a tensor lies; kept, as the next forward's will lie the same way."""
        key = (x.shape, samples.numel(), scale.shape, zero_point.shape, x.dtype, scale.dtype, zero_point.dtype)
        known = self._shapes.get(key)
        if known is None:
            if len(self._shapes) >= _KEPT_SHAPES:
                self._shapes.clear()
            known = self._shapes[key] = ctypes.pointer(self._new_shape(x, samples, scale, zero_point))
        return known

    def _new_shape(self, x: Tensor, samples: Tensor, scale: Tensor, zero_point: Tensor) -> Shape:
        batch, words = self._lengths(x.shape, samples.numel())
        return Shape(
            batch=batch,
            words=words,
            n_scale=scale.numel(),
            scale_inner=words_sharing(x.shape, scale.shape, batch, "scale"),
            n_zero_point=zero_point.numel(),
            zero_point_inner=words_sharing(x.shape, zero_point.shape, batch, "zero point"),
            dtype=dtype_number(x),
            scale_dtype=DTYPES[scale.dtype],
            zero_point_dtype=DTYPES[zero_point.dtype],
            run=0 if self.axis is None else run_of(self.axis, x.shape, batch),
        )

    def _lengths(self, shape: Sequence[int], samples: int) -> tuple[int, int]:
        """How many samples a tensor has, and words each; raises PlanError unless there is a number for each sample."""
        if self.axis is None or samples == 1:
            return batch_and_words(shape, samples)
        found = self.axis.samples_in(shape, "a site")
        # of another number batch_and_words says what is wrong
        return (samples, math.prod(shape) // samples) if found == samples else batch_and_words((found,), samples)


def run_of(axis: BatchAxis, shape: Sequence[int], batch: int) -> int:
    """How many words of a sample lie together in a tensor; 0 where all of them do."""
    run = axis.inner * math.prod(shape[axis.axis + 1 :])
    return 0 if batch * run in (0, math.prod(shape)) or axis == PLAIN else run


def _readable(number: Tensor) -> Tensor:
    """A scale or zero point as the native library reads it."""
    known = number if number.dtype in DTYPES else number.to(torch.float64)
    return known if known.is_contiguous() else known.contiguous()
