"""What was tried, kept in a campaign's store, so that its page tells it whenever it is written anew."""

import json
from collections.abc import Sequence
from typing import Any

from hwfault.campaigns.database import Database
from hwfault.campaigns.hardening.proof import Proof, Tried
from hwfault.campaigns.hardening.several import Several
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.errors import FileError
from hwfault.laws.models import FaultList

KEY = "hardening"
_OF_TRIED = ("sdc", "due", "removed", "accuracy", "regained")
_OF_SEVERAL = ("wrong", "silent", "sdc")


def keep_proofs(database: Database, proofs: Sequence[Proof]) -> None:
    """Adds what was tried to a store, in the place of what was tried before of the same question and rates."""
    kept = []
    for one in read_proofs(database):
        if not any(new.is_of(one.question, one.rate, one.rates) for new in proofs):
            kept.append(one)
    database.say(KEY, json.dumps([one.to_data() for one in (*kept, *proofs)]))


def read_proofs(database: Database) -> list[Proof]:
    """What was tried, in the order in which it was; raises FileError for a damaged store."""
    text = database.said(KEY)
    if text is None:
        return []
    try:
        return [_proof(one) for one in json.loads(text)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(f"{database.path}: what it says of {KEY!r} cannot be read ({error!r}); it is damaged") from None


def _proof(data: dict[str, Any]) -> Proof:
    several = tuple(_several(one) for one in data["several"])
    tried = tuple(_tried(one) for one in data["tried"])
    # an older version kept the mean rate alone, of which nobody knows whether it was that of every site
    rates = data["rates"] if "rates" in data or data["rate"] is None else {}
    if rates is not None:
        rates = {str(site): float(rate) for site, rate in rates.items()}
    return Proof(data["question"], data["rate"], tried, several, rates)


def _tried(data: dict[str, Any]) -> Tried:
    # an older version kept neither ranges nor combinations
    laws = data.get("laws")
    if laws is not None:
        laws = FaultList.parse({"faults": laws}, "what was tried").faults
    measures = tuple((str(site), str(name)) for site, name in data.get("measures", ()))
    return Tried(**(data | _estimates(data, _OF_TRIED) | {"laws": laws, "measures": measures}))


def _several(data: dict[str, Any]) -> Several:
    return Several(**(data | _estimates(data, _OF_SEVERAL) | {"sites": tuple(data["sites"])}))


def _estimates(data: dict[str, Any], keys: Sequence[str]) -> dict[str, Estimate | None]:
    return {key: _estimate(data[key]) for key in keys}


def _estimate(data: dict[str, Any] | None) -> Estimate | None:
    if data is None:
        return None
    ends = data["ends"]
    return Estimate(**(data | {"ends": None if ends is None else (float(ends[0]), float(ends[1]))}))
