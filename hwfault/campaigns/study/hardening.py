"""What a study says of hardening: at which rate, what is required, what measures cost."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, field_validator, model_validator

from hwfault.campaigns.statistics.requirements import Requirement
from hwfault.records import Record

Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Key = Literal["sdc", "due", "accuracy_lost"]
"""What may be required of."""
DataBits = Annotated[StrictInt, Field(ge=1, le=64)]


class Costs(Record):
    """What measures cost, in plain bits and in reads of one; the defaults are assumptions, not measured.

    A hardened cell takes the place of `hardened_bit` plain ones and is read for the energy of `hardened_read`; reading
    a memory word of `data_bits` takes the energy of its bits, check bits among them, and of `decode` reads of a bit.
    Keeping a word within a range takes `compare` reads of a bit.
    """

    hardened_bit: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    hardened_read: Factor = 1.0
    decode: Factor = 0.0
    compare: Factor = 0.0
    data_bits: tuple[DataBits, ...] = (32, 64)


class Hardening(Record):
    """What is required of the hardened network, at `rate` flips for each bit in a trial.

    `rates_of` names a question of the study, at a point of its sweep, instead ("voltage voltage_v=0.53"): each site's
    bits then flip as often as its faults make them. Without either, requirements are on what one flip does. `require`
    has limits on the rates of `sdc` and `due`, and on the share of right answers that are lost (`accuracy_lost`), such
    as "< 1e-5"; the cheapest plan has the least extra memory, or takes the least `minimize: energy`.
    """

    rate: Annotated[float, Field(gt=0, le=1)] | None = None
    rates_of: str | None = None
    require: dict[Key, str] = Field(default_factory=dict)
    minimize: Literal["memory", "energy"] = "memory"
    costs: Costs = Costs()

    @field_validator("require")
    @classmethod
    def _limits_from_above(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, text in value.items():
            if Requirement.read(text).side != "<":
                raise ValueError(f'{key}: {text!r} asks for more of what harms; expected a limit, such as "< 1e-5"')
        return value

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if self.rate is not None and self.rates_of is not None:
            raise ValueError("`rate` is one for all bits, `rates_of` has one for each site; expected one of the two")
        return self

    def limit(self, key: Key) -> float | None:
        """The limit that a rate has to be below; None where nothing is required of it."""
        return Requirement.read(self.require[key]).limit if key in self.require else None
