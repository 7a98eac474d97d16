"""Options that name what a command writes, and the check that none of it lies where the command reads from."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from hwfault.errors import FileError, GraphError, HwfaultError
from hwfault.files import check_suffix, check_writable
from hwfault.train.folder import CONFIG, FILES

_LARGEST_MANIFEST = 1 << 24
_TEXTS = (".yaml", ".yml", ".json")


class OutputFile(click.Path):
    """A file that a command writes, whose name ends in one of the suffixes where the content is chosen by it."""

    def __init__(self, *suffixes: str, what: str = "this") -> None:
        super().__init__(path_type=Path)
        self.suffixes = suffixes
        self.what = what

    def check_name(self, path: Path, param: click.Parameter) -> None:
        """Raises BadParameter for a name that ends in none of the suffixes; devices and pipes may have any."""
        if not self.suffixes or (os.path.exists(path) and not os.path.isfile(path)):
            return
        try:
            check_suffix(path, self.suffixes, self.what)
        except FileError as error:
            raise click.BadParameter(str(error), click.get_current_context(silent=True), param) from None


class OutputFolder(click.Path):
    """A folder in which a command writes files of these names; without names, a file, or a folder as a whole."""

    def __init__(self, *names: str) -> None:
        super().__init__(path_type=Path)
        self.names = names


def check_places(params: Iterable[click.Parameter], values: dict[str, Any]) -> None:
    """Raises FileError if one of a command's outputs is an input or another output, or cannot be written there.

    Raises BadParameter for a name whose ending says nothing, or something else, of its content.
    """
    outputs: list[Path] = []
    inputs: list[str] = []
    whole: list[Path] = []
    for param in params:
        value = values.get(param.name or "")
        if value is None:
            continue
        if isinstance(param.type, OutputFolder) and param.type.names:
            outputs += [value / name for name in param.type.names]
        elif isinstance(param.type, OutputFile | OutputFolder):
            outputs.append(value)
            whole += [value] if isinstance(param.type, OutputFolder) and os.path.isdir(value) else []
        else:
            inputs += _texts(value)
    if not values.get("resume"):  # which goes on in the folder that it reads
        check_outputs(outputs, inputs, whole)
    for param in params:
        value = values.get(param.name or "")
        if value is not None and isinstance(param.type, OutputFile):
            param.type.check_name(value, param)
            check_writable(value)
        elif value is not None and isinstance(param.type, OutputFolder) and not param.type.names:
            check_writable(value, folder=True)


def _texts(value: Any) -> Iterator[str]:
    """The texts and paths in an option's value."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _texts(part)


def check_outputs(outputs: Iterable[Path], inputs: Iterable[str], whole: Iterable[Path] = ()) -> None:
    """Raises FileError if a file to be written is one of those that are read, under whatever name.

    `inputs` are paths, or texts in which one stands (NAME=FILE, FILE@AXIS=VALUE, map:FILE, WRITTEN:READ). A run's
    folder, a bundle and a graph have files of their own, and faults and configurations name some, which are read as
    well. Folders of `whole` are replaced with
    all that lies in them.
    """
    outputs = list(outputs)
    for number, out in enumerate(outputs):
        if any(_same(out, other) for other in outputs[:number]):
            raise FileError(f"{out}: was given for two outputs, expected a place of its own for each")
    given = [path for text in inputs for path in _paths(text)]
    for out in outputs:
        if not os.path.exists(out):
            continue  # a new file takes nothing away
        for path in given:
            if _same(out, path):
                raise FileError(
                    f"{out}: is an input of this command as well, and would be destroyed; choose another place"
                )
            if any(_same(out, own) for own in _belonging(path, out)):
                raise FileError(f"{out}: belongs to the input {path}, and would be destroyed; choose another place")
    for folder in whole:
        for path in given:
            if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
                raise FileError(f"{folder}: holds the input {path}, which would be lost; choose another place")


def _same(first: Path, second: Path) -> bool:
    """Whether two names lead to one file, also by links and hard links."""
    try:
        return os.path.samefile(first, second)
    except OSError:  # one of them is not there: then the names decide
        return os.path.realpath(first) == os.path.realpath(second)
    except ValueError:  # a name that no file can have
        return False


def _paths(text: str) -> Iterator[Path]:
    """What exists of the paths that a text may name."""
    after = text.partition("=")[2] or text
    candidates = (text, after, after.rpartition("@")[0], text.rpartition("@")[0], *re.split("[=@:,]", text))
    for candidate in dict.fromkeys(candidates):
        if candidate and "\0" not in candidate and os.path.exists(candidate):
            yield Path(candidate)


def _belonging(path: Path, out: Path) -> Iterator[Path]:
    """The files that an input consists of beside itself, as far as `out` may be one of them."""
    if os.path.isdir(path):
        yield from (path / name for name in (*FILES, *_listed(path / "manifest.json")))
        yield from path.glob("epoch-*.safetensors")
        yield from _named_in(path / CONFIG)
    elif path.suffix in _TEXTS:
        yield from _named_in(path)
    elif path.suffix == ".onnx" and os.path.isfile(out):
        from hwfault.graph.read.external import files_of

        try:
            yield from files_of(path)
        except GraphError:  # which the command itself will tell
            return


def _named_in(path: Path) -> Iterator[Path]:
    """What exists of the files that a file of faults or a configuration names: maps, profiles, checkpoints, data."""
    from hwfault.records import read_yaml

    try:
        waiting = [read_yaml(path)]  # JSON is YAML, too
    except HwfaultError:  # which the command itself will tell, if it reads it at all
        return
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
        elif isinstance(part, str):
            yield from _paths(part)


def _listed(manifest: Path) -> Iterator[str]:
    """The files that a bundle's manifest lists, and itself."""
    try:
        if not os.path.isfile(manifest) or manifest.stat().st_size > _LARGEST_MANIFEST:
            return
        files = json.loads(manifest.read_bytes())["files"]
        yield manifest.name
        yield from (name for name in files if isinstance(name, str) and "\0" not in name)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
