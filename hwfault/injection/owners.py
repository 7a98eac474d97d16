"""Which thread has faults attached to which modules: two threads never have faults on one network."""

import threading
import weakref
from collections.abc import Iterable
from typing import NoReturn

from torch import nn

from hwfault.errors import HwfaultError

_LOCK = threading.Lock()
_HERE = threading.local()


class _Life:
    """Lives as long as the thread that made it: its thread-local storage alone holds it."""


class Claim:
    """That this thread has faults on some modules, until it is released or the thread has ended.

    Raises HwfaultError if another thread has a claim on any of them. Claims of one thread do not meet.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        wanted = list(modules)
        if not hasattr(_HERE, "life"):
            _HERE.life = _Life()
        # a Thread's own is_alive() is not true for threads that Python did not start
        self._life = weakref.ref(_HERE.life)
        self._thread = threading.current_thread().name
        self._modules = [weakref.ref(module) for module in wanted]
        with _LOCK:
            for module in wanted:
                _refuse_others(_CLAIMS.get(module, []))
            for module in wanted:
                _CLAIMS.setdefault(module, []).append(self)

    @property
    def elsewhere(self) -> bool:
        """Whether it is a living thread's, and not this one's."""
        life = self._life()
        return life is not None and life is not getattr(_HERE, "life", None)

    @property
    def thread(self) -> str:
        return self._thread

    def release(self) -> None:
        """Ends it; from any thread, harmless when called twice."""
        with _LOCK:
            for module in (reference() for reference in self._modules):
                if module is not None and self in (claims := _CLAIMS.get(module, [])):
                    claims.remove(self)
                    if not claims:
                        del _CLAIMS[module]
        self._modules = []


# claims hold modules weakly, so that a network that is dropped while it has faults is freed
_CLAIMS: weakref.WeakKeyDictionary[nn.Module, list[Claim]] = weakref.WeakKeyDictionary()


def _refuse_others(claims: list[Claim]) -> None:
    for claim in claims:
        if claim.elsewhere:
            raise HwfaultError(
                f"the thread {claim.thread!r} has faults attached to this network, and so they would strike what "
                f"{threading.current_thread().name!r} computes, too; use a copy for each thread (copy.deepcopy(model), "
                "whose copy is clean), or attach, run and remove in one thread after the other"
            )


def refuse_two_forwards(what: str) -> NoReturn:
    """Raises HwfaultError: `what`, as "the site 'x' runs", in another thread than it may."""
    raise HwfaultError(
        f"{what} in another thread than the forward that was begun last: two forwards at once of a network with faults "
        "attached would mix up their samples' numbers; use a copy for each thread (copy.deepcopy(model), whose copy is "
        "clean, and an injection of its own), or run one after the other"
    )
