"""Things named by a text: a built-in name, or `module:function` for the user's own code."""

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from hwfault.errors import HwfaultError, nearest


def is_code(spec: str) -> bool:
    """Whether the text names code to import, which a file from outside must not be trusted to do."""
    return ":" in spec


def call_named(what: str, spec: str, built_in: Mapping[str, Callable[..., Any]], arguments: Mapping[str, Any]) -> Any:
    """What the named function returns for `arguments`.

    Raises HwfaultError, with `what` ("network", "data") in its text, for a name that is unknown or cannot be
    imported and for arguments that the function does not take; the function's own errors pass through.
    """
    function = _imported(what, spec) if is_code(spec) else built_in.get(spec)
    if function is None:
        raise HwfaultError(f"{what} {spec!r} is unknown: {nearest(spec, built_in)} or give your own as module:function")
    _check_arguments(f"{what} {spec!r}", function, arguments)
    return function(**arguments)


def named(what: str, spec: str) -> Callable[..., Any]:
    """The callable that `module:function` names, not called: a function, or any other object that can be called.

    Raises HwfaultError, with `what` in its text, if it cannot be imported or is a class.
    """
    if not is_code(spec):
        raise HwfaultError(f"{what} {spec!r} is unknown, expected module:function")
    found = _imported(what, spec)
    if isinstance(found, type):
        raise HwfaultError(f"{what} {spec!r} is a class, expected a function or an instance; make one and name that")
    return found


def _imported(what: str, spec: str) -> Callable[..., Any]:
    module_name, _, name = spec.partition(":")
    try:
        module = import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:  # an empty and a relative name raise the latter two
        needs = "pip install 'hwfault[vision]'" if "torchvision" in str(error) else "expected module:function"
        raise HwfaultError(f"{what} {spec!r}: the module cannot be imported ({error}); {needs}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise HwfaultError(f"{what} {spec!r}: {module_name} has no function {name!r}: {nearest(name, known)}")
    checked: Callable[..., Any] = function
    return checked


def _check_arguments(subject: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    try:
        parameters = signature(function)
    except ValueError:  # some builtins have no signature; the call itself tells
        return
    try:
        parameters.bind(**arguments)
    except TypeError as error:
        raise HwfaultError(f"{subject} takes {parameters}, given {dict(arguments)}: {error}") from None
