"""Writing a profile as YAML."""

from pathlib import Path
from typing import Any

import yaml

from hwfault.files import write_atomically
from hwfault.profiles.profile import Profile


def write_profile(path: Path | str, profile: Profile) -> None:
    """Writes the profile as a YAML file, atomically, without what is left at its default; raises FileError."""
    text = yaml.dump(_plain(profile), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    write_atomically(path, text.encode())


def _plain(profile: Profile) -> Any:
    """The keys that differ from their defaults, and the words that say which kind a part is."""
    whole = profile.model_dump(mode="json")
    differing = profile.model_dump(mode="json", exclude_defaults=True)
    for part, value in whole.items():
        if isinstance(value, dict) and "kind" in value and part in differing:
            # a kind is the default of its own record, but says which one this is when it is read
            differing[part] = {"kind": value["kind"]} | differing[part]
    return _source_last(differing)


def _source_last(data: Any) -> Any:
    if isinstance(data, list):
        return [_source_last(item) for item in data]
    if not isinstance(data, dict):
        return data
    ordered = sorted(data.items(), key=lambda item: item[0] == "source")
    return {key: _source_last(value) for key, value in ordered}


class _Dumper(yaml.SafeDumper):
    """Short mappings and lists in one line."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        if flow_style is None:
            flow_style = _is_short(mapping)
        return super().represent_mapping(tag, mapping, flow_style=flow_style)


def _is_short(mapping: Any) -> bool:
    values = mapping.values() if isinstance(mapping, dict) else [value for _, value in mapping]
    if any(isinstance(value, list) for value in values):
        return False
    return len(str(mapping)) < 100
