"""The C++ extension for torch (export/torch), which does what Python does here with less of it, to the same bits.

It is there where somebody has built it (`python -m hwfault.fast`), is tied to the versions of torch, Python and hwfault
that it was built with, and so has these in its file's name. Nothing is compiled here. Whoever asks for it takes the way
through ctypes where there is none.
"""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor

import hwfault
from hwfault.errors import NativeLibraryError
from hwfault.notices import tell_once
from hwfault.program.batch_axes import PLAIN, BatchAxis
from hwfault.stream.mechanism import STREAM
from hwfault.stream.native import addresses, library_path
from hwfault.torch_ops.arranged import arrange, restore
from hwfault.torch_ops.strike_op import zero

MODULE = "hwfault_torch"
SWITCH = "HWFAULT_FAST"
"""An environment variable: with 0 the extension stays unused."""
BUILD = "python -m hwfault.fast"
_switched_off = 0


def extension() -> ModuleType | None:
    """The extension, None where there is none for these versions or it is switched off.

    Says once, by the log, where it could be there: its extra is installed, or another version was built.
    """
    if _switched_off or os.environ.get(SWITCH) == "0":
        return None
    return _loaded()


@contextmanager
def without_extension() -> Iterator[None]:
    """Inside, there is no extension: injections and quantizers that begin take the way through ctypes."""
    global _switched_off
    _switched_off += 1
    try:
        yield
    finally:
        _switched_off -= 1


def hook_behind(hook: Any) -> Any:
    """The hook itself, or the one in Python for which the extension's stands."""
    return hook.args[0] if type(hook) is partial and hook.args else hook


def first_striking(hooks: Mapping[int, Any], module: ModuleType) -> Any:
    """The hook that strikes a module's output by the extension before any other hook sees it, None if there is none."""
    first = next(iter(hooks.values()), None)
    return hook_behind(first) if type(first) is partial and first.func is module.strike_output else None


def sources() -> list[Path]:
    """The extension's sources, and the header that they call the native library by; raises NativeLibraryError."""
    packages = [Path(folder) for folder in hwfault.__path__]
    # the project's before those that were installed, which may be older
    for export in [*(folder.parent / "export" for folder in packages), *(folder / "_export" for folder in packages)]:
        header = export / "include" / "hwfault.h"
        found = sorted(p for p in (export / "torch").glob("*") if p.suffix in (".cc", ".h"))
        if found and header.is_file():
            return [*found, header]
    raise NativeLibraryError(
        f"the sources of the C++ extension are not in {hwfault.__path__[0]}; install hwfault again"
    )


def file_name() -> str:
    """What a file of the extension for these versions and sources is called."""
    digest = hashlib.sha256(hwfault.__version__.encode())
    for source in sources():
        digest.update(source.name.encode() + source.read_bytes())
    return f"{MODULE}-{torch.__version__}-{sysconfig.get_config_var('SOABI')}-{digest.hexdigest()[:16]}.so"


def folders() -> list[Path]:
    """Where the extension may lie: beside the native library, and in the user's cache where that cannot be written."""
    cached = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [library_path().parent, cached / "hwfault"]


@cache
def _loaded() -> ModuleType | None:
    """The extension, loaded and connected to the native library."""
    try:
        name, places = file_name(), folders()
    except (NativeLibraryError, OSError, RuntimeError):  # no sources, or no home
        return None
    path = next((folder / name for folder in places if (folder / name).is_file()), None)
    if path is None:
        _tell_missing(places)
        return None
    try:
        return _load(path)
    except (ImportError, OSError, KeyError, AttributeError) as error:
        tell_once([f"the C++ extension {path} cannot be loaded ({error}); run `{BUILD}` again"])
        return None


def _load(path: Path) -> ModuleType:
    """The module of a file; raises ImportError for one of another version of torch."""
    spec = spec_from_file_location(MODULE, path, loader=ExtensionFileLoader(MODULE, str(path)))
    assert spec is not None
    module = module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    check_version(module)
    sys.modules[MODULE] = module  # as of any module: pickle looks there
    module.connect(addresses())
    module.strike_class(IntQuantTensor)
    module.call_zero_followed(_zero_followed)
    _let_compilers_follow(module.strike_output)
    return module


@cache
def _let_compilers_follow(strike_output: Any) -> None:
    """Compilers follow the hook in Python in place of the function, into which they cannot look."""
    torch.compiler.substitute_in_graph(strike_output, skip_signature_check=True)(_call_hook)


def _call_hook(hook: Any, proxy: Any, args: Any, output: Any) -> Any:
    """What `strike_output` does, to the same bits."""
    return hook(proxy, args, output)


def _zero_followed(
    gradient: Tensor,
    samples: Tensor,
    seed: int,
    program: list[int],
    bit_width: int,
    signed: bool,
    representation: int,
    where: tuple[bool, int, int, int],
) -> Tensor:
    """A gradient with zeros where faults change words, by the operator that whoever follows a backward pass sees.

    `where` says whether the values have samples, and the axis of these.
    """
    whole = torch.ones(()), torch.zeros(())  # no code decides, and so no scale
    operands = [samples, torch.tensor(seed), torch.tensor(program, dtype=torch.int64), *whole]
    numbers = [bit_width, int(signed), representation]
    batched, axis, inner, rows = where
    along = BatchAxis(axis=axis, inner=inner, rows=rows)
    if not batched or along == PLAIN:
        plain: Tensor = zero(gradient, None, operands, numbers, STREAM.name)
        return plain
    return restore(zero(arrange(gradient, along), None, operands, numbers, STREAM.name), gradient, along)


def check_version(module: Any) -> None:
    """Raises ImportError for an extension that was compiled with the headers of another torch."""
    if torch.__version__.partition("+")[0] != module.TORCH_VERSION:
        raise ImportError(f"it was built for torch {module.TORCH_VERSION}, this is {torch.__version__}")


def _tell_missing(places: list[Path]) -> None:
    """Says why there is no extension, if whoever installed hwfault may expect one."""
    other = next((path for folder in places for path in folder.glob(f"{MODULE}-*.so")), None)
    if other is not None:
        tell_once([f"{other} was built for other versions of torch, Python or hwfault; run `{BUILD}` again"])
    elif find_spec("ninja") is not None:
        tell_once([f"hwfault[fast] is installed, but its C++ extension was not built; run `{BUILD}`"])
