"""Numbers, shares and names as profiles write them: `yes` is no number, and infinities are none either."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from hwfault.errors import ModelError
from hwfault.stream.tables import check_probability


def _no_yes_or_no(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")
    return value


def _in_range(value: float) -> float:
    return check_probability(value, "the number")


def _share(value: Any) -> Any:
    """YAML reads 1e-3 (without a point) as text."""
    if isinstance(value, str) and re.fullmatch(_NAME, value):
        return value
    try:
        return check_probability(float(_no_yes_or_no(value)), "the share")
    except (TypeError, ValueError) as error:
        told = str(error) if isinstance(error, ModelError) else f"{value!r} is neither a number nor a parameter's name"
        raise ValueError(told) from None


_NAME = r"^[a-z][a-z0-9_]*$"

Number = Annotated[float, BeforeValidator(_no_yes_or_no), Field(allow_inf_nan=False)]
"""A finite number."""
Probability = Annotated[float, BeforeValidator(_no_yes_or_no), AfterValidator(_in_range)]
"""A number in [0, 1]."""
Count = Annotated[int, BeforeValidator(_no_yes_or_no), Field(ge=0)]
"""A whole number from 0."""
Positive = Annotated[int, BeforeValidator(_no_yes_or_no), Field(ge=1)]
"""A whole number from 1."""
Name = Annotated[str, Field(pattern=_NAME)]
"""The name of an axis or parameter, as `--faults NAME@axis=value` can write it."""
Share = Annotated[float | str, BeforeValidator(_share)]
"""A number in [0, 1], or the name of a free parameter."""


def list_numbers(values: Any) -> str:
    """Numbers as a text: 0.53, 0.54, 0.55."""
    return ", ".join(f"{value:g}" for value in values)
