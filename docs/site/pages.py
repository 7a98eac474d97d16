"""Gathers the pages of the documentation site: those of the repository where they lie, and those made from the code.

`python docs/site/pages.py FOLDER`; MkDocs makes the site of FOLDER (`make docs`).
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

import hwfault
from hwfault.cli import main
from hwfault.profiles.describe import lines, sources
from hwfault.profiles.library import library
from hwfault.profiles.profile import Profile

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "export/SPEC.md", "fault_models/SCHEMA.md")
FOLDERS = ("docs", "examples", "export/example", "tests/benchmarks/results", "fault_models")
"""Pages, pictures and files that pages lead to; each keeps its place, so that links between them hold."""
LINKED = (".md", ".png", ".csv", ".yaml", ".txt", ".cc", ".py", ".html", ".ipynb", "LICENSE")
_WIDTH = 100
"""Of the help, in characters."""


def gather(folder: Path) -> None:
    """Fills the folder, which is made anew, with all pages."""
    shutil.rmtree(folder, ignore_errors=True)
    for source in _sources():
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    reference = folder / "reference"
    reference.mkdir()
    (reference / "python.md").write_text(python_page(), encoding="utf-8")
    (reference / "commands.md").write_text(commands_page(), encoding="utf-8")
    (reference / "profiles.md").write_text(profiles_page(reference), encoding="utf-8")


def _sources() -> Iterator[Path]:
    yield from (ROOT / page for page in PAGES)
    for folder in FOLDERS:
        found = (ROOT / folder).rglob("*")
        yield from (path for path in found if path.name.endswith(LINKED) and path.parent.name != "site")


def python_page() -> str:
    """Every public name with its signature, fields and docstring."""
    said = "Everything that `import hwfault as hf` gives. What these docstrings say is kept from version to version."
    parts = ["# Python", said]
    for name in sorted(hwfault.__all__, key=str.lower):
        options = f"    options:\n      heading: hf.{name}\n      toc_label: {name}"
        parts.append(f"::: {hwfault._PUBLIC[name]}.{name}\n{options}")
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """Every command as its --help tells it."""
    parts = ["# Commands", "Each as `--help` prints it; [what all of them have in common](../docs/command-line.md)."]
    for words, command in _commands(main, ("hwfault",)):
        context = click.Context(command, info_name=" ".join(words), max_content_width=_WIDTH, terminal_width=_WIDTH)
        context.help_option_names = ["-h", "--help"]
        parts += [f"## {' '.join(words)}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*words, name))
        elif command is not None:
            yield (*words, name), command


def profiles_page(folder: Path) -> str:
    """Every profile of the library: its picture, what it says, and its sources."""
    parts = [
        "# Fault profiles",
        "Pieces of hardware whose faults were measured, or are defined by a standard, with the source of every number. "
        "`hwfault profiles show NAME` prints more; [their files](../fault_models/SCHEMA.md).",
    ]
    for name in library():
        profile = Profile.load(name)
        parts += [f"## {name}", profile.title, *_picture(profile, folder)]
        parts.append("\n".join(f"- **{what}**: {how}" for what, how in (*lines(profile), *sources(profile))))
    return "\n\n".join(parts) + "\n"


def _picture(profile: Profile, folder: Path) -> list[str]:
    """Draws the rate over the operating point, with one device's map, where there is a curve to draw."""
    file = folder / f"{profile.name}.png"
    done = CliRunner().invoke(main, ["profiles", "plot", profile.name, "--out", str(file), "--quiet"])
    if done.exit_code:  # a profile whose rate the user sets has no curve
        return []
    return [f"![{profile.title}]({file.name})"]


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
