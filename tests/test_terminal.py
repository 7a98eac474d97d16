"""What a terminal would obey is shown and not sent to it."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from hwfault.terminal import shown


def test_escape_codes():
    assert shown("\x1b[31mred\x1b[0m") == "\\x1b[31mred\\x1b[0m"
    assert shown("\x1b]0;title\x07") == "\\x1b]0;title\\x07"
    assert shown("\x9b2J") == "\\x9b2J"
    assert shown("over\rwritten\b") == "over\\rwritten\\x08"
    assert shown("\u202egpj.exe") == "\\u202egpj.exe"
    assert shown("\udc80") == "\\udc80"


def test_plain_text_stays():
    text = "Zeile 1\n\tGröße 8 µs, 语, 🙂, \\x1b\n"
    assert shown(text) == text
    assert shown(text, one_line=True) == text.replace("\n", "\\n").replace("\t", "\\t")


@given(st.text(max_size=200))
def test_nothing_is_left_to_obey(text):
    safe = shown(text)
    kinds = {unicodedata.category(character) for character in safe if character not in "\n\t"}
    assert kinds.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert shown(safe) == safe
    assert "\n" not in shown(text, one_line=True)
