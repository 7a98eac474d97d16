"""Names of sites. A quantizer's first run in a forward has its own name, `q`; further ones are `q#1`, `q#2`, ..."""

from fnmatch import fnmatchcase

MARK = "#"
"""What stands between a name and the number of a run; the path of a module that holds one is no site."""

_WILD = frozenset("*?[")


def run_name(first: str, run: int) -> str:
    """The name of run `run` (0 is the first) of the site `first`."""
    return f"{first}{MARK}{run}" if run else first


def split_run(name: str) -> tuple[str, int]:
    """The name of a site's first run, and which run it is; a name without a number is that of run 0."""
    first, mark, number = name.rpartition(MARK)
    # "q#01" and "q#0" are nobody's names, and so are taken as they are
    numbered = mark and first and number.isascii() and number.isdecimal() and not number.startswith("0")
    return (first, int(number)) if numbered and len(number) < 6 else (name, 0)


def first_run(name: str) -> str:
    """The name of a site's first run."""
    return split_run(name)[0]


def fits(glob: str, name: str) -> bool:
    """Whether a glob chooses a site's name: one without wildcards chooses one run, the others all runs."""
    if fnmatchcase(name, glob):
        return True
    return MARK not in glob and not _WILD.isdisjoint(glob) and fnmatchcase(first_run(name), glob)
