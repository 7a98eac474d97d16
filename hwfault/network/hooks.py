"""Hooks and stand-ins on a module that no copy of it takes along.

`copy.deepcopy`, pickle and what is built on them (averaged weights, saving a whole module, starting a process) copy a
module's dicts of hooks and its attributes. A copy made while faults are attached would be faulty for ever: nobody but
the injection can take its hooks away. So each dict with a hook of hwfault's says itself how it is copied, without them;
and a module with a stand-in what its state is, without that. What copies in some other way is stopped with an error.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from hwfault.errors import HwfaultError
from hwfault.torch_ops.inside_torch import compiler


class OwnHook:
    """A hook of hwfault's on a module, until it is removed."""

    def __init__(self, handle: RemovableHandle) -> None:
        self._handle, self.id = handle, handle.id
        # with them those that say how it is called: with keyword arguments, or after an error, too
        references = [handle.hooks_dict_ref, *handle.extra_dict_ref]
        self._dicts: list[OrderedDict[int, Any]] = [d for d in (find() for find in references) if d is not None]
        for hooks in self._dicts:
            _Copying.of(hooks).own.add(self.id)

    @classmethod
    def before_forward(cls, module: nn.Module, hook: Callable[..., Any], **how: bool) -> "OwnHook":
        return cls(module.register_forward_pre_hook(hook, **how))

    @classmethod
    def after_forward(cls, module: nn.Module, hook: Callable[..., Any], **how: bool) -> "OwnHook":
        return cls(module.register_forward_hook(hook, **how))

    def remove(self) -> None:
        self._handle.remove()
        for hooks in self._dicts:
            _Copying.of(hooks).drop(self.id)


class _Copying:
    """How a dict of hooks is copied: as one without hwfault's. Its methods are attributes of the dict itself."""

    def __init__(self, hooks: "OrderedDict[int, Any]") -> None:
        self._hooks = hooks
        self.own: set[int] = set()
        # not another dict in its place: the handles of the user's hooks know this one
        vars(hooks).update(__deepcopy__=self.deepcopy, __reduce_ex__=self.reduce)

    @classmethod
    def of(cls, hooks: "OrderedDict[int, Any]") -> "_Copying":
        """The present one of a dict, or a new one."""
        present = getattr(vars(hooks).get("__deepcopy__"), "__self__", None)
        return present if isinstance(present, cls) else cls(hooks)

    def drop(self, key: int) -> None:
        """One hook less; without any the dict is as it was."""
        self.own.discard(key)
        if not self.own:
            for name in ("__deepcopy__", "__reduce_ex__"):
                vars(self._hooks).pop(name, None)

    def deepcopy(self, memo: dict[int, Any]) -> "OrderedDict[int, Any]":
        copied: OrderedDict[int, Any] = OrderedDict()
        memo[id(self._hooks)] = copied
        for key, hook in self._others():
            copied[key] = copy.deepcopy(hook, memo)
        return copied

    def reduce(self, _protocol: Any) -> tuple[Any, ...]:
        """As object.__reduce_ex__ answers: the class, its arguments, no state, no list, the entries."""
        return OrderedDict, (), None, None, self._others()

    def _others(self) -> Iterator[tuple[int, Any]]:
        return iter([(key, hook) for key, hook in self._hooks.items() if key not in self.own])


class StandIn:
    """An attribute of a module that stands in for its class's, until it is removed.

    `may_be_copied` raises an error where the module cannot be copied meanwhile.
    """

    def __init__(self, module: nn.Module, name: str, value: Any, may_be_copied: Callable[[], None]) -> None:
        self._module, self._name, self._value, self._may_be_copied = module, name, value, may_be_copied
        setattr(module, name, value)
        # asked by deepcopy, copy and pickle; an object's own attribute goes before its class's
        vars(module)["__getstate__"] = self._state
        if hasattr(type(module), "__deepcopy__"):  # such as torch's parametrized layers: it may not ask for the state
            vars(module)["__deepcopy__"] = self._deepcopy

    def remove(self) -> None:
        own = vars(self._module)
        if own.get(self._name) is self._value:  # and not what somebody else has put there meanwhile
            del own[self._name]
        for name in ("__getstate__", "__deepcopy__"):
            own.pop(name, None)

    def _state(self) -> Any:
        self._may_be_copied()
        state = type(self._module).__getstate__(self._module)  # type: ignore[no-untyped-call]
        return (
            {key: value for key, value in state.items() if not self._is_own(key)} if isinstance(state, dict) else state
        )

    def _deepcopy(self, memo: dict[int, Any]) -> Any:
        self._may_be_copied()
        hidden = {key: value for key, value in vars(self._module).items() if self._is_own(key)}
        for key in hidden:
            del vars(self._module)[key]
        try:
            return copy.deepcopy(self._module, memo)
        finally:
            vars(self._module).update(hidden)

    def _is_own(self, key: str) -> bool:
        return key in (self._name, "__getstate__", "__deepcopy__")


def has_stand_in(module: nn.Module) -> bool:
    """Whether an attribute of a module, or of one below it, stands in for that of its class."""
    return any("__getstate__" in vars(part) for part in module.modules())


class NeverCopied:
    """What belongs to one injection on one module; raises HwfaultError where something copies it nevertheless."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise HwfaultError(
            "the faults of a model were to be copied or pickled with it in a way that hwfault does not know; leave "
            "the `with inject(...)` block (or call .remove() on it) first, or use copy.deepcopy: its copies are clean"
        )


def notice_hooks() -> None:
    """Makes compiled graphs look for hooks: by default those compiled before would run on as if none were attached."""
    dynamo = compiler()  # nothing is compiled as long as it is not there
    if dynamo is not None and dynamo.config.skip_nnmodule_hook_guards:
        dynamo.config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()
