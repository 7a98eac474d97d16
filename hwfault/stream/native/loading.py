"""The native library: where it lies, its functions, and its errors as exceptions."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import hwfault
from hwfault.errors import HwfaultError, NativeLibraryError
from hwfault.stream.native.header import SIGNATURES

_ABI_VERSION = 4
_NAMES = ("libhwfault.so", "libhwfault.dylib", "hwfault.dll")


def library_path() -> Path:
    """Where the native library lies; raises NativeLibraryError if it was never built."""
    for folder in hwfault.__path__:
        for name in _NAMES:
            path = Path(folder) / "_native" / name
            if path.is_file():
                return path
    raise NativeLibraryError(
        f"hwfault was imported from {hwfault.__path__[0]}, where its native library was never built; run "
        "`pip install .` in the project's folder (or `pip install -e .` to develop) and import it from there"
    )


def onnxruntime_library() -> str:
    """Path of the library that adds QONNX's and hwfault's ops to onnxruntime, for `register_custom_ops_library`."""
    return str(library_path())


@cache
def library() -> Any:
    """The loaded library, whose functions raise HwfaultError with its text where they return an error.

    Raises NativeLibraryError if it is not there, not loadable or of another version.
    """
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeLibraryError(f"{path} cannot be loaded ({error}); run `pip install .` again") from None
    loaded.hwfault_abi_version.restype = ctypes.c_int64
    if loaded.hwfault_abi_version() != _ABI_VERSION or not all(hasattr(loaded, name) for name in SIGNATURES):
        raise NativeLibraryError(f"{path} is of another version of hwfault; run `pip install .` again")
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
        if result is ctypes.c_int64:
            function.errcheck = _checked
    return loaded


def addresses() -> dict[str, int]:
    """Where the library's functions lie in memory, by their names."""
    loaded = library()
    return {name: ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value or 0 for name in SIGNATURES}


def _checked(result: int, _function: Any, _arguments: Any) -> int:
    """What a function returned; raises HwfaultError if that is an error, which is negative."""
    if result < 0:
        raise HwfaultError(library().hwfault_error_text(result).decode())
    return result
