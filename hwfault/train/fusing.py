"""Quantizers that run as one operator each while a network is trained or measured, and what is said of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from torch import nn

from hwfault.errors import HwfaultError, NativeLibraryError
from hwfault.fusion.fused import Fused, fused
from hwfault.stream.native.loading import library
from hwfault.torch_ops.inside_torch import is_compiled

_NAMED = 3
"""How many quantizers are named that stay as they are for one reason."""


@contextmanager
def fusing(network: nn.Module, *, wanted: bool = True) -> Iterator[Callable[[], str]]:
    """Inside, a network's integer quantizers run as one operator each (see hwfault.fused), where wanted and possible.

    What it answers with says in one line how many do, and why others do not, once they have run. Raises HwfaultError
    where they do already, and where a network writes over what the backward pass needs then.
    """
    why = _why_none() if wanted else "`fused` is false"
    if why is not None:
        yield lambda: f"all quantizers run as Brevitas' own: {why}"
        return
    with fused(network) as block:
        try:
            yield lambda: describe_fused(network, block)
        except RuntimeError as error:  # as autograd tells of it
            if "modified by an inplace operation" not in str(error):
                raise
            raise HwfaultError(
                f"the network writes over a tensor that the backward pass needs ({str(error).split(';')[0]}); "
                "quantizers that run as one operator each keep what they were given: do without operations in place, "
                "or set `fused: false`"
            ) from error


@contextmanager
def fusing_to_measure(network: nn.Module) -> Iterator[None]:
    """The same where values alone are asked for, which are Brevitas' to the bit; a block of the user's own stays."""
    block: AbstractContextManager[object] = nullcontext()
    if _why_none() is None:
        with suppress(HwfaultError):  # they run as one operator each already
            block = fused(network)
    with block:
        yield


def _why_none() -> str | None:
    """Why no quantizer can run as one operator here; None where they can."""
    try:
        library()
    except NativeLibraryError as error:
        return str(error)
    return None


def describe_fused(network: nn.Module, block: Fused) -> str:
    """In one line how many quantizers run as one operator each, and why others do not, once they have run."""
    ours, others = block.fused, block.left
    told = f"{len(ours)} of {len(ours) + len(others)} quantizers run as one operator each"
    left = [f"{_named(names)} ({why})" for why, names in _by_reason(others).items()]
    if any(map(is_compiled, network.modules())):
        left.append("all that torch.compile has compiled")  # which the block is not told of
    return f"{told}; as Brevitas' own: {'; '.join(left)}" if left else told


def _by_reason(left: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in left.items():
        found.setdefault(why, []).append(name)
    return found


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
