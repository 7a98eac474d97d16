"""Things named by a text: a built-in name, or `module:function` for the user's own code."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from inspect import signature
from traceback import extract_tb
from types import FrameType, ModuleType
from typing import Any

from hwfault.errors import HwfaultError, ModelError, nearest


class _OwnModules(MetaPathFinder):
    """Finds modules in one folder: those that the user names, and what these import themselves.

    The folder is not on sys.path, where any installed package that looks for an optional one of its own (dill, pandas)
    would run what lies there under that name.
    """

    def __init__(self, folder: str, names: Iterable[str] = ()) -> None:
        self.folder = folder
        self.names = set(names)
        """The names, without dots, of the modules that may be found here and may find others here."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """The module of a name without dots, if it is named by the user or imported from one of the folder's own."""
        if path is not None or not (name in self.names or _importer() in self.names):
            return None
        spec = PathFinder.find_spec(name, [self.folder], target)
        if spec is not None:
            self.names.add(name)
        return spec


def _importer() -> str:
    """The first part of the name of the module whose code imports just now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and name.partition(".")[0] not in ("importlib", "_frozen_importlib"):
            return name.partition(".")[0]
        frame = frame.f_back
    return ""


_FINDERS: list[_OwnModules] = []


@contextmanager
def modules_of_current_folder() -> Iterator[None]:
    """Inside, `module:function` may name a module of the current folder, where no installed one has that name."""
    try:
        finder = _OwnModules(os.getcwd())
    except OSError:  # it was removed
        yield
        return
    with _installed(finder):
        yield


@contextmanager
def _installed(finder: _OwnModules) -> Iterator[None]:
    _FINDERS.append(finder)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        _FINDERS.remove(finder)
        sys.meta_path.remove(finder)


class OwnModules:
    """What a worker process needs to find the user's modules, if it is pickled, and so unpickled, before these."""

    def __reduce__(self) -> tuple[Callable[..., "OwnModules"], tuple[list[tuple[str, list[str]]]]]:
        return _restored, ([(finder.folder, sorted(finder.names)) for finder in _FINDERS],)


def _restored(found: list[tuple[str, list[str]]]) -> OwnModules:
    known = {finder.folder for finder in _FINDERS}
    for finder in (_OwnModules(folder, names) for folder, names in found if folder not in known):
        _FINDERS.append(finder)
        sys.meta_path.append(finder)
    return OwnModules()


def is_code(spec: str) -> bool:
    """Whether the text names code to import, which a file from outside must not be trusted to do."""
    return ":" in spec


def call_named(what: str, spec: str, built_in: Mapping[str, Callable[..., Any]], arguments: Mapping[str, Any]) -> Any:
    """What the named function returns for `arguments`.

    Raises HwfaultError, with `what` ("network", "data") in its text, for a name that is unknown or cannot be
    imported, for arguments that the function does not take, and for what the user's own function raises.
    """
    function = _imported(what, spec) if is_code(spec) else built_in.get(spec)
    if function is None:
        raise ModelError(f"{what} {spec!r} is unknown: {nearest(spec, built_in)} or give your own as module:function")
    _check_arguments(f"{what} {spec!r}", function, arguments)
    if not is_code(spec):
        return _built(f"{what} {spec!r}", function, arguments)
    with errors_of(f"{what} {spec!r}"):
        return function(**arguments)


def _built(subject: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """What a built-in function returns; HwfaultError where the arguments ask for more memory than there is."""
    try:
        return function(**arguments)
    except (MemoryError, OverflowError) as error:
        reason = str(error) or type(error).__name__
    except RuntimeError as error:  # as torch tells of memory
        if not any(word in str(error) for word in ("alloc", "too large", "overflow")):
            raise
        reason = str(error).splitlines()[0]
    raise HwfaultError(f"{subject} cannot be made with {dict(arguments)} ({reason[:200]}); ask for less")


def named(what: str, spec: str) -> Callable[..., Any]:
    """The callable that `module:function` names, not called: a function, or any other object that can be called.

    Raises HwfaultError, with `what` in its text, if it cannot be imported or is a class.
    """
    if not is_code(spec):
        raise ModelError(f"{what} {spec!r} is unknown, expected module:function")
    found = _imported(what, spec)
    if isinstance(found, type):
        raise HwfaultError(f"{what} {spec!r} is a class, expected a function or an instance; make one and name that")
    return found


@contextmanager
def errors_of(subject: str) -> Iterator[None]:
    """Inside the user's own code runs: what it raises becomes a HwfaultError that says where, but for hwfault's own."""
    try:
        yield
    except HwfaultError:
        raise
    except Exception as error:
        raise HwfaultError(f"{subject} raised {_told(error)}; mend that code, or name another") from error


def _told(error: Exception) -> str:
    """An error's type and text, and the last line of code that is not an installed package's."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):  # which tells its place itself
        return text
    frames = [frame for frame in extract_tb(error.__traceback__) if frame.line]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{text} ({own[-1].filename}, line {own[-1].lineno})" if own else text


def _imported(what: str, spec: str) -> Callable[..., Any]:
    module_name, _, name = spec.partition(":")
    for finder in _FINDERS:
        finder.names.add(module_name.partition(".")[0])
    try:
        module = import_module(module_name)
    except Exception as error:  # an empty and a relative name have their own, and the module may raise any
        needs = "pip install 'hwfault[vision]'" if "torchvision" in str(error) else "expected module:function"
        reason = str(error) if isinstance(error, ImportError | ValueError | TypeError) else _told(error)
        raise HwfaultError(f"{what} {spec!r}: the module cannot be imported ({reason}); {needs}") from error
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
