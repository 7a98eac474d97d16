"""What is special about the words of a site, for whoever lists sites or compares engines."""

from collections.abc import Iterable

from hwfault.program.processes import Site

_FLOAT32_BITS = 24
EXACT = "its words are integers as they are, and any struck code is held exactly"
"""The note on a site whose words are wide, and held by a type that has them all."""


def note_on(site: Site) -> str | None:
    """One sentence on a site whose words are struck as they should be but not held so by every type, else None."""
    if not is_wide(site):
        return None
    return (
        f"its words have {site.bit_width} bits, float32 has {_FLOAT32_BITS}: a struck code becomes the nearest value "
        "that the type has; which bits are struck, and how often, is exact"
    )


def is_wide(site: Site) -> bool:
    """Whether float32 does not hold every integer of a site's words."""
    return site.kind != "accumulator" and site.bit_width > _FLOAT32_BITS


def notes_on(sites: Iterable[Site]) -> dict[str, str]:
    """The notes on those of the sites that have one, by name."""
    found = {site.name: note_on(site) for site in sites}
    return {name: note for name, note in found.items() if note is not None}
