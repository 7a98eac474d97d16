"""Where the samples of a batch lie in each tensor that a forward makes, told by the functions that it calls.

What moves elements does the same to a tensor that says which sample each element is of; everything else keeps the axis
where it was.
"""

from collections.abc import Callable
from typing import Any

import torch
from brevitas.quant_tensor import QuantTensor
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hwfault.network.accumulators import Notes, bare
from hwfault.network.inputs import Axes, tensors_in
from hwfault.program.batch_axes import BatchAxis
from hwfault.torch_ops.arranged import unnamed
from hwfault.torch_ops.inside_torch import viewed

_MOVES = {
    *("transpose", "permute", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint", "flatten"),
    *("unflatten", "reshape", "reshape_as", "view", "view_as", "squeeze", "unsqueeze", "expand", "expand_as"),
    *("broadcast_to", "repeat", "tile", "repeat_interleave", "roll", "flip", "fliplr", "flipud", "rot90"),
    *("narrow", "select", "chunk", "split", "tensor_split", "unbind", "index_select", "take_along_dim"),
    *("gather", "__getitem__", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "pixel_shuffle"),
    *("pixel_unshuffle", "channel_shuffle", "contiguous", "clone", "detach", "split_with_sizes"),
    *("hsplit", "vsplit", "dsplit", "dstack", "column_stack", "row_stack", "take", "copy"),
    *("__setitem__", "index_copy", "index_put", "scatter", "select_scatter", "slice_scatter"),
}
"""Functions that put elements elsewhere, or leave some out, whatever they hold; those in place end in "_"."""
_INDICES = {
    **{"__getitem__": 1, "__setitem__": 1, "take": 1, "take_along_dim": 1, "index_put": 1},
    **{"index_select": 2, "gather": 2, "index_copy": 2, "scatter": 2, "repeat_interleave": 1, "tensor_split": 1},
}
"""Those of them that are told which elements, and where among their arguments; as keywords `_BY_NAME`."""
_BY_NAME = ("index", "indices", "repeats", "indices_or_sections", "tensor_indices_or_sections")
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "linear"}
"""Functions that add up products along an axis of both operands."""
_SORTS = {"sort": 1, "argsort": 1, "topk": 2, "msort": None}
"""Functions that put elements elsewhere by what they hold; where the axis stands among their arguments (None: 0)."""
_PROPERTIES = {getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")}
_REDUCES = {
    *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "prod", "norm", "logsumexp", "nanmean"),
    *("nansum", "any", "all", "argmax", "argmin", "median"),
}
"""Functions that make one element of several, along axes that they are given."""
_ANY = -1
"""In place of a sample's number: an element that comes from no input."""


class Gone:
    """In place of an axis: the samples do not lie along any, by what the functions did."""


_GONE = Gone()
Lying = BatchAxis | Gone


class Following(TorchFunctionMode):
    """Where the samples of a batch lie in each tensor, passed on by every function."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self._samples = samples
        self.notes = Notes[Lying]()

    def note_inputs(self, given: Any, axes: Axes) -> None:
        """Notes where the samples of the inputs lie."""
        tensors = list(tensors_in(given))
        for tensor, axis in zip(
            tensors, axes if isinstance(axes, tuple | list) else [axes] * len(tensors), strict=False
        ):
            has_it = isinstance(axis, int) and -tensor.dim() <= axis < tensor.dim()
            if has_it and tensor.shape[axis] == self._samples:
                self.notes.note(tensor, BatchAxis(axis=axis % tensor.dim()))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = [t for t in tensors_in((args, kwargs)) if self.notes.of(t) is not None]
        if not known:
            return func(*args, **kwargs)
        numbers = self._moved(func, args, kwargs)  # before the call, which may write to its inputs
        views = self._viewed(func, args, kwargs, numbers)
        out = func(*args, **kwargs)
        values = [bare(t) for t in (_values(out) or _written(func, args, kwargs))]
        said = self._said(func, args, kwargs, values)
        for i, value in enumerate(values):
            if said is not None:
                self.notes.note(value, said)
            elif numbers is not None and i < len(numbers) and numbers[i].shape == value.shape:
                self.notes.note(value, self._fitting(numbers[i]))
            else:
                self.notes.note(value, self._kept(known, value))
        for whole, lying in views:
            self.notes.note(whole, lying)
        return out

    def lying(self, given: Tensor, value: Tensor) -> Lying | None:
        """Where the samples of a quantizer's or layer's values lie, which it may have made unseen."""
        noted = self.notes.of(value)
        return self._kept([given], value) if noted is None and self.notes.of(given) is not None else noted

    # ---- functions that move elements

    def _said(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], values: list[Any]) -> Lying | None:
        """Where the arguments themselves say that the samples lie behind a function; None where they do not."""
        name = _name(func)
        if name in _PRODUCTS:
            factors = list(tensors_in((args, kwargs)))[:2]
            factors = factors[::-1] if name == "__rmatmul__" else factors
            return _behind_product(name, factors, [self.notes.of(factor) for factor in factors], values)
        if name == "einsum" and args and isinstance(args[0], str):
            operands = args[1] if isinstance(args[1], tuple | list) else args[1:]
            return _behind_sum(args[0], [self.notes.of(operand) for operand in operands])
        if name == "as_strided":  # by places in memory, which the numbers of samples do not have
            return _GONE
        if name not in _SORTS:
            return None
        place = _SORTS[name]
        value = bare(args[0] if args else kwargs["input"])
        given = args[place] if place is not None and len(args) > place else -1
        axis = 0 if place is None else kwargs.get("dim", given)
        lying = self.notes.of(value)
        # samples in an order that their values say
        gone = isinstance(lying, BatchAxis) and isinstance(axis, int) and axis % value.dim() == lying.axis
        return _GONE if gone else None

    def _moved(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> list[Tensor] | None:
        """Which sample each element of the outputs is of; None where the function does not only move elements."""
        name = _name(func)
        moves = name in _MOVES or func in _PROPERTIES
        if not moves and name not in _REDUCES:
            return None
        try:
            if not moves:
                return _tensors(self._reduced(*args, **kwargs))
            given, named = self._operands(name, args, kwargs)
            into = _written(func, args, kwargs)
            if into and into[0] is (args[0] if args else None):  # what is written has memory of its own
                given[0] = given[0].clone()
            return _tensors(func(*given, **named)) or _tensors(given[0])
        except Exception:  # whatever a function has against integers
            return None

    def _operands(self, name: str, args: Any, kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """What a function that moves elements is to be called with; raises ValueError if it is given no sample's."""
        place = _INDICES.get(name)
        given = [part if i == place else self._numbered(part) for i, part in enumerate(args)]
        named = {
            key: part if place is not None and key in _BY_NAME else self._numbered(part)
            for key, part in kwargs.items()
            if key != "out"
        }
        data = [
            *(part for i, part in enumerate(args) if i != place),
            *(kwargs[key] for key in named if key not in _BY_NAME),
        ]
        if place is not None and not any(self.notes.of(t) is not None for t in tensors_in(data)):
            raise ValueError("samples tell which elements of what is none of theirs")
        if name in ("__setitem__", "scatter") and isinstance(given[-1], bool | int | float):
            given[-1] = _ANY
        if isinstance(named.get("value"), bool | int | float):
            named["value"] = _ANY
        return given, named

    def _viewed(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], numbers: list[Tensor] | None
    ) -> list[tuple[Tensor, Lying | None]]:
        """The tensor into a part of which a function writes, and where the samples lie in it then."""
        views = [(part, viewed(part)) for part in _written(func, args, kwargs)]
        part, whole = next(((part, whole) for part, whole in views if whole is not None), (None, None))
        if part is None or whole is None:
            return []
        if numbers is None or numbers[0].shape != part.shape:
            lying = self.notes.of(whole)  # as what is computed element by element
            return [(whole, lying if self.notes.of(part) is not None else _GONE)]
        held = torch.empty_strided(whole.shape, whole.stride(), dtype=torch.int32, device=whole.device)
        held.copy_(self._numbered(whole))
        held.as_strided(part.shape, part.stride(), part.storage_offset() - whole.storage_offset()).copy_(numbers[0])
        return [(whole, self._fitting(held))]

    def _numbered(self, given: Any) -> Any:
        """Arguments with the samples' numbers in place of the elements of followed tensors."""
        if isinstance(given, Tensor | QuantTensor):
            value = bare(given)
            if self.notes.of(value) is not None:
                return self._numbers(value)
            return torch.full_like(unnamed(value.detach()), _ANY, dtype=torch.int32)
        if isinstance(given, dict):
            return {key: self._numbered(part) for key, part in given.items()}
        if isinstance(given, tuple | list):
            return type(given)(self._numbered(part) for part in given)
        return given

    def _numbers(self, value: Tensor) -> Tensor:
        """The sample's number at each element of a followed tensor, without memory of its own."""
        lying = self.notes.of(value)
        if not isinstance(lying, BatchAxis) or value.shape[lying.axis] != lying.rows * self._samples:
            return torch.full((), self._samples, dtype=torch.int32, device=value.device).expand(value.shape)
        rows = torch.arange(value.shape[lying.axis], device=value.device) // lying.inner % self._samples
        shape = [1] * value.dim()
        shape[lying.axis] = -1
        return rows.to(torch.int32).reshape(shape).expand(value.shape)

    def _reduced(self, x: Any, dim: Any = None, keepdim: bool = False, **rest: Any) -> Any:
        """The sample's number where all that become one element are of one sample, none of them elsewhere."""
        axes = rest.get("axis", dim)
        numbers = self._numbers(bare(x))
        if axes is None:
            return None
        least, most = numbers.amin(axes, keepdim), numbers.amax(axes, keepdim)
        return torch.where(least == most, least, self._samples)

    def _fitting(self, numbers: Tensor) -> Lying | None:
        """The axis along which these are the samples' numbers."""
        if not numbers.numel() or bool((numbers == _ANY).all()):
            return None
        for axis in range(numbers.dim()):
            rows, rest = divmod(numbers.shape[axis], self._samples)
            if rest or not rows:
                continue
            lines = numbers.movedim(axis, 0).flatten(1) if numbers.dim() > 1 else numbers.unsqueeze(1)
            index = torch.arange(len(lines), device=numbers.device)
            for inner in (n for n in range(1, rows + 1) if rows % n == 0):
                expected = (index // inner % self._samples).unsqueeze(1)
                if bool(((lines == expected) | (lines == _ANY)).all()):
                    return BatchAxis(axis=axis, inner=inner, rows=rows)
        return _GONE

    # ---- all others

    def _kept(self, known: list[Tensor], value: Tensor) -> Lying | None:
        """The axis of what a function computes: that of an input of the same shape, or the same from the front."""
        noted = [(t, self.notes.of(t)) for t in known]
        noted.sort(key=lambda pair: (isinstance(pair[1], Gone), pair[0].shape != value.shape, -pair[0].numel()))
        given, lying = noted[0]
        if not isinstance(value, Tensor) or lying is None or isinstance(lying, Gone):
            return lying
        same = given.dim() == value.dim() or lying.axis == 0
        if same and lying.axis < value.dim() and value.shape[lying.axis] == given.shape[lying.axis]:
            return lying
        return _GONE


def _behind_sum(equation: str, lying: list[Lying | None]) -> Lying | None:
    """Where the samples lie behind an Einstein sum, which names each axis; None where the equation does not say."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    if not arrow or "." in equation:
        return None
    known = [(term, axis) for term, axis in zip(inputs.split(","), lying, strict=False) if isinstance(axis, BatchAxis)]
    found = {
        axis.model_copy(update={"axis": output.index(term[axis.axis])}) if term[axis.axis] in output else None
        for term, axis in known
    }
    if not found:
        return None
    (first, *others) = found
    return _GONE if others or first is None else first


def _behind_product(name: str, operands: list[Tensor], lying: list[Lying | None], values: list[Any]) -> Lying | None:
    """Where the samples lie behind a product, by which axes are added up; None where it does not say."""
    if len(operands) < 2 or len(values) != 1:
        return None
    (left, right), out = (bare(operand) for operand in operands), values[0]
    transposed = name == "linear"  # both are added up along their last axis
    summed = {0: -1, 1: -1 if transposed or right.dim() == 1 else -2}
    found: set[int] = set()
    for i, (operand, other) in enumerate(((left, right), (right, left))):
        axis = lying[i]
        if not isinstance(axis, BatchAxis):
            continue
        place = axis.axis - operand.dim()
        if place == summed[i]:
            return _GONE
        if i == 1 and transposed:
            place = -1
        elif other.dim() == 1 and (i == 0 or place < -2):  # an axis less behind it
            place += 1
        found.add(place % out.dim() if out.dim() else 0)
    axes = [axis for axis in lying if isinstance(axis, BatchAxis)]
    if not axes:
        return None
    same = len(found) == 1 and all((a.rows, a.inner) == (axes[0].rows, axes[0].inner) for a in axes)
    return axes[0].model_copy(update={"axis": found.pop()}) if same else _GONE


def _written(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> list[Any]:
    """The tensor that a function writes into, if it is one of those that do."""
    if "out" in kwargs:
        return _tensors(kwargs["out"])
    name = str(getattr(func, "__name__", ""))
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return _tensors(args[0]) if writes and args else []


def _tensors(made: Any) -> list[Tensor]:
    return list(tensors_in(made))


def _name(func: Callable[..., Any]) -> str:
    """The name of a function, of one that works in place that of the other."""
    name = str(getattr(func, "__name__", ""))
    return name if name.startswith("__") else name.removesuffix("_")


def _values(out: Any) -> list[Any]:
    """The tensors that a function gives back."""
    return list(tensors_in(out))
