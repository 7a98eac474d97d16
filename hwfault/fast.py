"""`python -m hwfault.fast` builds the C++ extension for torch (export/torch), which makes hooks on networks cost less.

It needs a C++ compiler, ninja and setuptools (the extra "fast"), and is built for the versions of torch and Python that
run it.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hwfault.errors import HwfaultError, NativeLibraryError
from hwfault.torch_ops.extension import MODULE, file_name, folders, sources

_FLAGS = ["-O2", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"]


def build() -> Path:
    """Compiles the extension, unless it is there, and returns its path.

    It goes beside the native library, or to the user's cache where that folder cannot be written. Raises
    NativeLibraryError where it cannot be compiled.
    """
    name = file_name()
    for folder in folders():
        if (folder / name).is_file():
            return folder / name
    folder = _writable(folders())
    with tempfile.TemporaryDirectory(prefix=f"{MODULE}-") as scratch:
        built = _compile(Path(scratch))
        if folder == folders()[0]:  # this environment's; another one's may be in the cache, too
            for other in folder.glob(f"{MODULE}-*.so"):
                other.unlink()
        return _put(built, folder / name)


def _compile(scratch: Path) -> Path:
    """The compiled file, in a folder that is empty before."""
    try:
        from torch.utils import cpp_extension

        *code, header = sources()
        # torch's headers take most of the time: they are read once for all files
        whole = scratch / f"{MODULE}.cc"
        whole.write_text("".join(f'#include "{path}"\n' for path in code if path.suffix == ".cc"), encoding="utf-8")
        cpp_extension.load(
            MODULE,
            [str(whole)],
            extra_cflags=_FLAGS,
            extra_include_paths=[str(header.parent)],
            build_directory=str(scratch),
            is_python_module=False,  # the module is loaded by whoever uses it, connected to the native library
        )
        (built,) = scratch.glob(f"{MODULE}*.so")
        return built
    except (ImportError, RuntimeError, OSError) as error:
        raise NativeLibraryError(
            f"the C++ extension cannot be compiled ({error}); expected a C++ compiler, the headers of Python, ninja "
            "and setuptools: pip install 'hwfault[fast]' brings the last two"
        ) from error


def _writable(candidates: list[Path]) -> Path:
    """The first folder that can be written, made if it is not there."""
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise NativeLibraryError(f"none of {', '.join(map(str, candidates))} can be written; expected one of them to be")


def _put(built: Path, path: Path) -> Path:
    """Moves a file to where it is to be, whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}")
    shutil.copyfile(built, part)
    part.replace(path)
    return path


def main() -> None:
    """Builds the extension and prints its path."""
    try:
        print(build())
    except HwfaultError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
