"""YAML as the core schema of YAML 1.2 reads it (yaml.org/spec/1.2.2, 10.3), bounded before memory is taken.

PyYAML alone reads YAML 1.1, in which 1:30 is 90, 010 is 8, 0b1 is 1, `no` is false, and 1e-3 is a text.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from hwfault.notices import tell_once

_MOST_PARTS = 1 << 20
"""The most values that a document may stand for, an alias counted as all that it repeats."""
_WORDS = ("yes", "no", "on", "off")
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")
_ANY_START = None


class _Loader(yaml.SafeLoader):
    """A safe loader with the plain values of YAML 1.2; a key that is given twice is an error."""


_Loader.yaml_implicit_resolvers = {}  # those of YAML 1.1, which it inherits, are left out


for _name, _pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INTEGER), ("float", _FLOAT)):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern.pattern})\\Z"), _ANY_START)
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"<<\Z"), ["<"])


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = _scalar(loader, node, _INTEGER, "a whole number")
    return int(text[2:], 8 if text[1] == "o" else 16) if text[:2] in ("0o", "0x") else int(text)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(_scalar(loader, node, _FLOAT, "a number").replace(".inf", "inf").replace(".nan", "nan"))


def _scalar(loader: _Loader, node: yaml.ScalarNode, pattern: re.Pattern[str], expected: str) -> str:
    text = str(loader.construct_scalar(node))
    if not pattern.fullmatch(text):  # as !!int may claim of anything
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is not {expected} of YAML 1.2", node.start_mark)
    return text.lower() if "." in text else text


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _TAG + "merge":
            continue
        if (key.tag, key.value) in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
        seen.add((key.tag, key.value))
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(_TAG + "int", _integer)
_Loader.add_constructor(_TAG + "float", _float)
_Loader.add_constructor(_TAG + "map", _mapping)


def load_yaml(text: str) -> Any:
    """The content of a YAML document; raises yaml.YAMLError, ValueError or RecursionError for what is none.

    Aliases may repeat parts, but not themselves, and not to more than a million values in all. Words that other
    readers of YAML take for true or false are texts, of which the log tells.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_size(root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Raises YAMLError for a document that contains itself, or stands for too many values; linear in its text."""
    sizes: dict[int, int] = {}
    inside: set[int] = set()
    waiting: list[tuple[yaml.Node, bool]] = [(root, False)]
    while waiting:
        node, done = waiting.pop()
        if done:
            inside.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in _parts(node))
            if sizes[id(node)] > _MOST_PARTS:
                raise yaml.YAMLError(f"its aliases stand for more than {_MOST_PARTS} values, expected fewer")
        elif id(node) in inside:
            raise yaml.YAMLError("an alias stands for what it is a part of, which has no end")
        elif id(node) not in sizes:
            inside.add(id(node))
            waiting.append((node, True))
            waiting += [(part, False) for part in _parts(node)]
            _tell_of_words(node)


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _tell_of_words(node: yaml.Node) -> None:
    """Logs values that are words of YAML 1.1 for true and false."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        plain = isinstance(value, yaml.ScalarNode) and value.style is None
        if plain and isinstance(key, yaml.ScalarNode) and value.value.lower() in _WORDS:
            meant = "write true or false if that is meant"
            tell_once([f"{key.value} is the text {value.value!r}, as in YAML 1.2; {meant}"])
