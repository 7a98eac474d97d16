"""Pages: a template of templates/ filled in, complete in itself, with nothing in it that a browser would obey."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hwfault.report import colours
from hwfault.terminal import shown

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **data: Any) -> str:
    """The page that a template makes of data; texts in these are escaped, whoever wrote them.

    Characters that turn the direction of other text are written as in Python: \\u202e. Raises jinja2's UndefinedError
    where the template asks for what the data do not have.
    """
    # autoescape whatever a template is called; data that are missing are no empty text
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_tame,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment.get_template(template).render(colours=colours, **data)


def _breakable(value: str) -> Markup:
    """A text that may end a line behind each part of a name (features.2.weight_quant), but within no number (0.01)."""
    escaped = str(escape(shown(value)))
    return Markup(re.sub(r"(?<=\w)([._/])(?=\w)(?!(?<=\d\.)\d)", r"\1<wbr>", escaped))


def _tame(value: Any) -> Any:
    """A text without what a browser would obey besides markup; what a template made stays as it is."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value
