"""Text from outside on a terminal: nothing in it may move the cursor, change the window or turn other text round."""

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, with which all escape codes begin
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # those that turn the direction of writing
    "\u2028\u2029\ud800-\udfff]"  # other ends of lines, and halves of characters, which no encoding has
)


def shown(text: str, *, one_line: bool = False) -> str:
    """The text with each character that a terminal would obey written as in Python: \\x1b, \\u202e.

    Tabs and ends of lines stay, but with `one_line`, where these are written so too.
    """
    safe = _UNSAFE.sub(_escaped, text)
    return safe.replace("\n", "\\n").replace("\t", "\\t") if one_line else safe


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
