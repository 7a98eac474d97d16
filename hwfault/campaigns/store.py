"""Finished trials in a file, so that a campaign that was stopped goes on where it was."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from hwfault.campaigns.campaign import Campaign
from hwfault.campaigns.points import Point
from hwfault.campaigns.trials import Trial
from hwfault.differences import MISSING, differences
from hwfault.errors import FileError, ModelError
from hwfault.injection.ready import ProtectionCounts
from hwfault.injection.statistics import SiteStatistics
from hwfault.inputs import check_regular
from hwfault.laws.models import FaultModel
from hwfault.plan.fault_plan import FaultPlan, spec_of
from hwfault.program.striking import changes_with

_FORMAT = "hwfault-trials/1"
_LARGEST = 1 << 32

Question = Mapping[str, Any]
"""What trials depend on beside their point and seed, as JSON tells it: nested mappings of plain values."""


class Store:
    """Trials that are kept in a file of lines, the first of which says for which question; a `Keeper`.

    Opening it again reads them; a last line that a killed process left unfinished is dropped. Raises FileError for a
    file that holds another question's trials (and says what differs) or none, that another process writes, or that
    cannot be written.
    """

    def __init__(self, path: Path | str, question: Question) -> None:
        self._path = Path(path)
        self._trials: dict[tuple[str, int], Trial] = {}
        with self._explained():
            if self._path.exists():
                check_regular(self._path)
            self._file: IO[bytes] = open(self._path, "ab+")  # noqa: SIM115 (closed by close)
        try:
            self._lock()
            self._read(json.loads(json.dumps(question)))
        except BaseException:
            self._file.close()
            raise

    def get(self, point: Point, seed: int) -> Trial | None:
        """The trial of a point under a seed, None if there is none yet."""
        return self._trials.get((_key(point), seed))

    def put(self, point: Point, trial: Trial) -> None:
        """Adds a trial; it is in the file when this returns."""
        self._trials[_key(point), trial.seed] = trial
        self._write({"point": _key(point), **_trial_data(trial)})

    def __len__(self) -> int:
        return len(self._trials)

    def close(self) -> None:
        """Closes the file, with all that was put there safe on its disk."""
        with self._explained(), self._file:
            os.fsync(self._file.fileno())

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FileError(f"{self._path}: another process writes its trials there; wait for it to end") from None

    def _read(self, question: dict[str, Any]) -> None:
        with self._explained():
            if self._file.seek(0, os.SEEK_END) > _LARGEST:
                raise FileError(f"{self._path}: larger than {_LARGEST} bytes, expected trials of hwfault evaluate")
            self._file.seek(0)
            content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]  # a line without its end was being written when the process died
        lines = whole.splitlines()
        header = {"format": _FORMAT, "question": question}
        if lines:
            self._check(_parsed(self._path, 1, lines[0]), question)
        elif not _encoded(header).startswith(content):  # not what a process killed at its very beginning leaves
            raise self._foreign()
        with self._explained():
            self._file.truncate(len(whole))
        if not lines:
            self._write(header)
        for number, line in enumerate(lines[1:], 2):
            key, trial = _trial(self._path, number, line)
            self._trials[key, trial.seed] = trial

    def _check(self, header: Any, question: dict[str, Any]) -> None:
        if not isinstance(header, dict) or header.get("format") != _FORMAT or "question" not in header:
            raise self._foreign()
        found = differences(header["question"], question)
        if found:
            raise FileError(
                f"{self._path}: holds the trials of another question, which differs in\n{_listed(found)}\n"
                "choose another folder with --out, or remove this one's trials"
            )

    def _foreign(self) -> FileError:
        return FileError(f"{self._path}: does not hold trials of hwfault evaluate; choose another folder with --out")

    def _write(self, data: Mapping[str, Any]) -> None:
        with self._explained():
            self._file.write(_encoded(data))
            self._file.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileError(
                f"{self._path}: cannot be written ({error.strerror or error}); choose another place with --out"
            ) from None


def _encoded(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"


_MOST = 8


def _listed(found: Mapping[str, tuple[Any, Any]]) -> str:
    lines = [f"  {key}: {_short(old)} there, {_short(new)} now" for key, (old, new) in found.items()]
    if len(lines) > _MOST:
        more = len(lines) - _MOST
        lines[_MOST:] = [f"  and {more} more"]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if value is MISSING:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) > 80:
        return text[:77] + "..."
    return text


def _key(point: Point) -> str:
    """What tells a point from the others of its campaign."""
    told = dict(point.labels)
    if point.ber is not None:
        told["ber"] = point.ber
    return json.dumps(told, sort_keys=True)


def _trial_data(trial: Trial) -> dict[str, Any]:
    data: dict[str, Any] = {"seed": trial.seed, "correct": trial.correct}
    if trial.protection is not None:
        data |= {"protection": trial.protection._asdict(), "due": trial.due}
    if trial.statistics:
        data["statistics"] = [record.to_data() for record in trial.statistics]
    return data


def _trial(path: Path, number: int, line: bytes) -> tuple[str, Trial]:
    data = _parsed(path, number, line)
    try:
        key = data.pop("point")
        if data.get("protection") is not None:
            data["protection"] = ProtectionCounts(**data["protection"])
        data["statistics"] = tuple(SiteStatistics.from_data(site) for site in data.get("statistics", ()))
        return str(key), Trial.parse(data, "its trial")
    except (AttributeError, KeyError, TypeError, ModelError) as error:
        raise _unreadable(path, number, error) from None


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, number, error) from None


def _unreadable(path: Path, number: int, error: Exception) -> FileError:
    return FileError(
        f"{path}: line {number} is no trial of hwfault evaluate ({error}); remove the file, or choose another "
        "folder with --out"
    )


def question(campaign: Campaign, points: Sequence[Point], **told: Any) -> dict[str, Any]:
    """What the trials of a campaign's points depend on: `told` (names for people), network, samples, and faults."""
    plans = [campaign.whole_plan(point) for point in points]
    different = {plan.digest: plan for plan in plans}  # points that are parts of the same faults share a plan
    found: dict[str, Any] = {
        **told,
        # what a plan's faults do to a network has changed with the version, also where the plan has not
        "fault stream": spec_of("1.1"),
        "network digest": network_digest(campaign.model),
        "samples": campaign.samples,
        "samples digest": campaign.samples_digest,
        "device": campaign.device,
        "statistics": campaign.statistics,
    }
    # where faults change with batches, they depend on where these begin
    if any(_changes_with_batches(plan) for plan in different.values()):
        found["batch size"] = campaign.batch_size
    notes: dict[str, None] = {}
    for plan in different.values():
        notes.update(dict.fromkeys(plan.notes or ()))
    if notes:
        found["notes"] = list(notes)
    found["points"] = [_key(point) for point in points]
    found["faults"] = [[_fault(fault) for fault in plan.faults] for plan in different.values()]
    found["plans digest"] = sha256("".join(plan.digest for plan in plans).encode()).hexdigest()[:16]
    return found


def _changes_with_batches(plan: FaultPlan) -> bool:
    """Whether some process of a plan draws anew for each batch."""
    return any(changes_with(process, entry.site) == "batch" for entry in plan.sites for process in entry.processes)


def _fault(fault: FaultModel) -> dict[str, Any]:
    """A fault as short as it can be said."""
    return {"model": fault.model, **fault.model_dump(mode="json", exclude_defaults=True)}


def network_digest(network: nn.Module) -> str:
    """SHA-256 of a network's tensors with their names, types and shapes."""
    found = sha256()
    for key, tensor in network.state_dict().items():
        found.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
