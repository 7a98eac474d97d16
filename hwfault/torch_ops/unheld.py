"""Whether a tensor that was just computed may be overwritten: nobody holds it, its memory, or what contains it.

Counts decide. A tensor can be held from Python (reference counts of the object and of the QuantTensor around it), from
C++ (use count of the tensor: autograd has saved it as an input, or another branch waits for the same gradient), or
through a second tensor on its memory (use count of the storage: views, `detach`, autograd has saved it as an output);
memory that is not torch's own cannot be resized (NumPy's), or is shared (with another process). Autograd decides by the
same counts whether it may add up gradients in place. What the counts of an unheld tensor are where the question is
asked depends on the versions of Python and torch, and is measured there. Every further holder raises one of them, so
that equality is proof. The measurement includes tensors that are held: if any passes for unheld, or references are not
counted as they come and go (free threading), no tensor counts as unheld and all are copied.
"""

import functools
import sys
import weakref
from collections.abc import Callable, Container
from threading import Thread
from typing import Any

import numpy as np
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from hwfault.torch_ops import inside_torch

Counts = tuple[int, ...]

_RUNS = 16
"""How often the counts of an unheld tensor are measured; the least of them are taken."""

_COUNTED = inside_torch.COUNTS_USES and getattr(sys, "_is_gil_enabled", lambda: True)()


def output_is_unheld(output: Any, unheld: Container[Counts] | None = None) -> bool:
    """Whether a quantizer's output may be overwritten.

    To be asked by its forward hook itself, before that holds it by another name, and not where a compiler follows.
    """
    if unheld is None:
        unheld = _KNOWN.get(_measure_outputs) or _unheld_outputs()
        if not unheld:
            return False
    return _of_output(output) in unheld


def gradient_is_unheld(gradient: Tensor | None, unheld: Container[Counts] | None = None) -> bool:
    """Whether a gradient may be overwritten; to be asked first thing by a Function's `backward(ctx, *gradients)`."""
    if torch.compiler.is_compiling() or not _COUNTED:
        return False
    return _of_gradient(gradient) in (unheld_gradients() if unheld is None else unheld)


def _of_output(output: Any) -> Counts:
    wrapped = type(output) is IntQuantTensor
    value = output[0] if wrapped else output
    used = inside_torch.uses(value)
    return (wrapped, sys.getrefcount(output), sys.getrefcount(value), *used) if used else ()


def _of_gradient(gradient: Tensor | None) -> Counts:
    used = inside_torch.uses(gradient)
    return (sys.getrefcount(gradient), *used) if used else ()


_KNOWN: dict[Callable[[], frozenset[Counts]], frozenset[Counts]] = {}
"""What was measured, once in a process."""


def _on_a_fresh_thread(measure: Callable[[], frozenset[Counts]]) -> frozenset[Counts]:
    """The result of `measure`, free of the caller's modes: gradients, inference, dispatch, hooks on saved tensors."""
    if measure not in _KNOWN:
        found: list[frozenset[Counts]] = []
        thread = Thread(target=lambda: found.append(measure()))
        thread.start()
        thread.join()
        _KNOWN[measure] = found[0] if found else frozenset()
    return _KNOWN[measure]


def _unheld_outputs() -> frozenset[Counts]:
    """The counts of outputs that nobody holds; measured by some modules when asked for the first time."""
    # global hooks would see these modules, and might keep what they return
    if inside_torch.has_global_hooks() or not _COUNTED:
        return frozenset()
    return _on_a_fresh_thread(_measure_outputs)


def unheld_in_extension(extended: Any) -> Counts | None:
    """The counts of outputs that nobody holds as the extension's hooks see them; None where none counts as unheld."""
    if inside_torch.has_global_hooks() or not _COUNTED:
        return None
    _AskExtension.extended = extended
    return next(iter(_on_a_fresh_thread(_measure_in_extension)), None)


def unheld_gradients() -> frozenset[Counts]:
    """The counts of gradients that nobody holds; measured by a backward pass when asked for the first time."""
    return _on_a_fresh_thread(_measure_gradients) if _COUNTED else frozenset()


def _least(runs: list[Counts], held: list[Counts]) -> frozenset[Counts]:
    """The least counts of the runs, none if a run failed or a tensor that is held passes for unheld."""
    least = tuple(map(min, zip(*runs, strict=True))) if all(runs) else ()
    return frozenset() if not least or least in held else frozenset({least})


class _Noted(list[Counts]):
    """Notes the counts that are looked for in it, and finds none."""

    def __contains__(self, counts: object) -> bool:
        self.append(counts)  # type: ignore[arg-type]
        return False


def _nothing(_x: Any) -> None:
    return None


def _itself(x: Any) -> Any:
    return x


def _measure_outputs() -> frozenset[Counts]:
    return _measure_hooks(_Ask, (True, False))


def _measure_in_extension() -> frozenset[Counts]:
    return _measure_hooks(_AskExtension, (True,))


def _measure_hooks(asking: Callable[[], "_Ask"], wrappings: tuple[bool, ...]) -> frozenset[Counts]:
    holders: list[Callable[[Any], Any]] = [
        _itself,
        _value,
        lambda output: _value(output).detach(),
        lambda output: _value(output).view(-1),
        lambda output: _value(output) * torch.ones((), requires_grad=True),
        lambda output: _value(output).detach().numpy(),
    ]
    found: frozenset[Counts] = frozenset()
    for wrapped in wrappings:
        runs = [_asked_of_output(_product, wrapped, _nothing, asking) for _ in range(_RUNS)]
        held = [_asked_of_output(_product, wrapped, keep, asking) for keep in holders]
        held += [_asked_of_output(make, wrapped, _nothing, asking) for make in (torch.exp, _from_numpy, _shared_memory)]
        found |= _least(runs, held)
    return found


def _value(output: Any) -> Tensor:
    value: Tensor = output[0] if type(output) is IntQuantTensor else output
    return value


def _product(x: Tensor) -> Tensor:
    return x * 2


def _from_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.ones(x.shape, np.float32))


def _shared_memory(x: Tensor) -> Tensor:
    shared: Tensor = (x * 2).detach().share_memory_()  # type: ignore[no-untyped-call]
    return shared


class _Quantizer(nn.Module):
    """Returns what is made of a tensor, as it is or wrapped; a hook may keep it, and the next one asks."""

    def __init__(
        self, make: Callable[[Tensor], Tensor], wrapped: bool, keep: Callable[[Any], Any], ask: "_Ask"
    ) -> None:
        super().__init__()
        self._make, self._wrapped = make, wrapped
        self.kept: list[Any] = []
        self.register_forward_hook(lambda _module, _args, output: self.kept.append(keep(output)))
        for hook in ask.hooks:
            self.register_forward_hook(hook)

    def forward(self, x: Tensor) -> Any:
        value = self._make(x)
        return IntQuantTensor(value, 1.0, 0.0, 4.0, False, False) if self._wrapped else value


class _Ask:
    """A hook that asks as an injection's hooks do."""

    def __init__(self) -> None:
        self.noted = _Noted()
        self.seen: weakref.ref[Tensor]

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        output_is_unheld(output, self.noted)
        self.seen = weakref.ref(_value(output))

    @property
    def hooks(self) -> list[Callable[..., Any]]:
        """What a module is to call."""
        return [self]


class _AskExtension(_Ask):
    """One that asks as the extension's hooks do; a hook behind it sees whether the output outlives the call."""

    extended: Any = None

    @property
    def hooks(self) -> list[Callable[..., Any]]:
        return [functools.partial(self.extended.note_counts, self.noted), self._look]

    def _look(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self.seen = weakref.ref(_value(output))


def _asked_of_output(
    make: Callable[[Tensor], Tensor], wrapped: bool, keep: Callable[[Any], Any], asking: Callable[[], "_Ask"]
) -> Counts:
    """The counts that a hook sees; none if the output outlives the call although it was not to be kept."""
    ask = asking()
    quantizer = _Quantizer(make, wrapped, keep, ask)
    quantizer(torch.ones(4, device="cpu", dtype=torch.float32, requires_grad=True))
    outlives = ask.seen() is not None
    return () if outlives and keep is _nothing else ask.noted[0]


class _Identity(torch.autograd.Function):
    """Asks in its backward, as injections do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ask: _Ask) -> Tensor:
        ctx.ask = ask
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient_is_unheld(gradients[0], ctx.ask.noted)
        ctx.ask.seen = weakref.ref(gradients[0])
        return gradients[0], None


def _identity(x: Tensor, ask: _Ask) -> Tensor:
    y: Tensor = _Identity.apply(x, ask)  # type: ignore[no-untyped-call]
    return y


def _measure_gradients() -> frozenset[Counts]:
    runs = [_asked_of_gradient(_doubled) for _ in range(_RUNS)]
    held = [_asked_of_gradient(run, held=True) for run in (_kept, _detached, _given, _shared, _captured)]
    return _least(runs, held)


def _asked_of_gradient(run: Callable[[Tensor, Tensor, _Ask], None], held: bool = False) -> Counts:
    """The counts that a backward sees; none if the gradient outlives the run although nobody was to hold it."""
    one, ask = torch.ones(4, device="cpu", dtype=torch.float32), _Ask()
    run(one.clone().requires_grad_() * 1, one, ask)
    return () if ask.seen() is not None and not held else ask.noted[0]


def _doubled(x: Tensor, one: Tensor, ask: _Ask) -> None:
    torch.autograd.backward(_identity(x, ask) * 2, one)


def _kept(x: Tensor, one: Tensor, ask: _Ask, keep: Callable[[Tensor], Any] = _itself) -> None:
    y, kept = _identity(x, ask), []
    y.register_hook(lambda gradient: kept.append(keep(gradient)))  # type: ignore[no-untyped-call]
    torch.autograd.backward(y * 2, one)


def _detached(x: Tensor, one: Tensor, ask: _Ask) -> None:
    _kept(x, one, ask, lambda gradient: gradient.detach())


def _given(x: Tensor, one: Tensor, ask: _Ask) -> None:
    torch.autograd.backward(_identity(x, ask), one)


def _shared(x: Tensor, one: Tensor, ask: _Ask) -> None:
    other = x * 3  # made first, and so served last: its gradient waits
    torch.autograd.backward((other + _identity(x, ask)) * 2, one)


def _captured(x: Tensor, one: Tensor, ask: _Ask) -> None:
    y = _identity(x, ask)
    torch.autograd.grad(y * 2, (x, y), one)
