"""A plan of measures as fault models: what strikes the network that is protected so."""

from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path

import yaml

from hwfault.campaigns.hardening.measures import Measure
from hwfault.files import write_atomically
from hwfault.laws.models import BitFlips, FaultModel, ProfileFaults
from hwfault.program.selectors import Select

FILE = "hardening.yaml"
_FREE_RATE = "uniform-flips"


def faults_of(
    measures: Sequence[Measure], widths: Mapping[str, int], rate: float | Mapping[str, float]
) -> tuple[FaultModel, ...]:
    """Symmetric flips of each bit with probability `rate`, on sites that have these measures; `widths` of their words.

    Hardened bits do not flip; a protected memory is that of the profile uniform-flips, whose check bits flip as well.
    Where each site has a rate of its own (by name, 0 where it has none), sites that never flip are left out.
    """
    plain: dict[float, list[Select]] = {}
    found: list[FaultModel] = []
    for one in measures:
        select = Select(name=escape(one.site))
        own = rate.get(one.site, 0.0) if isinstance(rate, Mapping) else rate
        if not own:
            continue
        if one.kind == "none":
            plain.setdefault(own, []).append(select)
        elif one.kind == "hardened":
            width = widths[one.site]
            bits = (own,) * (width - one.size) + (0.0,) * one.size
            if one.size < width:
                found.append(BitFlips(probability=bits, sites=(select,)))
        else:
            point = {"ber": own}
            law = ProfileFaults(profile=_FREE_RATE, at=point, sites=(select,), protection=one.protection)
            found.append(law)
    flips = [BitFlips(probability=own, sites=tuple(sites)) for own, sites in plain.items()]
    return (*flips, *found)


def write_faults(path: Path, faults: Sequence[FaultModel], said: Sequence[str]) -> None:
    """Writes faults as YAML, as `--faults` and `faults:` take them, with comments in front; raises FileError."""
    listed = [fault.to_data() for fault in faults]
    lines = [f"# {line}" for text in said for line in text.splitlines()]
    text = "\n".join([*lines, yaml.safe_dump({"faults": listed}, sort_keys=False, width=110)])
    write_atomically(path, text.encode())
