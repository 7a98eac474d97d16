"""Rows of a campaign's page that say how its numbers came about: rules, failures, digests, sources, commands."""

import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import yaml

from hwfault.campaigns.about import About, RunTold
from hwfault.campaigns.kept import KeptTask
from hwfault.campaigns.page.sentences import Answered
from hwfault.campaigns.page.words import SPACE, share, told
from hwfault.campaigns.statistics.estimates import METHODS, Estimate
from hwfault.campaigns.study.records import Stop
from hwfault.campaigns.study.tasks import Draw

_FEW = 3
_RULES: dict[Draw, str] = {
    "seeds": "looks after 20, 40, 80, ... trials",
    "pairs": "may look at any number of trials",
    "strata": "looks at doubling numbers of trials",
    "listed": "one look, after every trial of the list",
    "all": "one look, after every flip",
    "turns": "looks after 20, 40, 80, ... trials",
}
Facts = list[tuple[str, str]]


def numbers_table(found: Answered) -> list[tuple[str, ...]]:
    """Every task with its rates, for people."""
    rows: list[tuple[str, ...]] = []
    for task, figure in found:
        golden = "-" if figure.golden_accuracy is None else share(figure.golden_accuracy)
        by = "-" if figure.sdc is None else figure.sdc.by
        rates = (_cell(figure.sdc), _cell(figure.due), _cell(figure.accuracy))
        rows.append((task.name, f"{figure.trials:,}", *rates, golden, by))
    return rows


def methods_told(found: Answered) -> Facts:
    """How the intervals of the table were found, each way once."""
    used = {figure.sdc.by: METHODS[figure.sdc.by] for _, figure in found if figure.sdc is not None}
    return list(used.items())


def _cell(estimate: Estimate | None) -> str:
    return "-" if estimate is None else told(estimate)


def rule_told(stop: Stop, draw: Draw) -> str:
    """When a task stops, in words."""
    of = "the numbers of all points" if draw == "turns" else "the number"
    goal = f"the interval reaches {100 * stop.relative:g}{SPACE}% of {of}"
    if stop.require is not None:
        goal = f"it is known whether the rate is {stop.require}"
    limit = f"after {stop.max_trials:,} trials"
    if stop.max_minutes is not None:
        limit += f" or {stop.max_minutes:g} minutes"
    if draw == "listed":
        return f"every listed trial is run; {_RULES[draw]}"
    if draw == "all":
        return f"every flip is tried; {_RULES[draw]}"
    return f"stops when {goal} ({100 * stop.confidence:g}{SPACE}% confidence), or {limit}; {_RULES[draw]}"


def failures_told(failed: Sequence[tuple[int, str]]) -> list[str]:
    """The reasons for which trials have no answers, the commonest first, with some of their keys."""
    by_reason = sorted(failed, key=lambda one: one[1])
    groups = []
    for why, those in groupby(by_reason, key=lambda one: one[1]):
        keys = [key for key, _ in those]
        groups.append((keys, why))
    groups.sort(key=lambda one: -len(one[0]))
    lines = []
    for keys, why in groups:
        some = ", ".join(map(str, keys[:_FEW])) + (", ..." if len(keys) > _FEW else "")
        lines.append(f"{len(keys):,} trial{'s' * (len(keys) != 1)} (keys {some}): {why}")
    return lines


def technical(tasks: Sequence[KeptTask], about: About | None, runs: Sequence[RunTold]) -> Facts:
    """Engine, exactness, digests of network and data, dates and versions."""
    facts: Facts = []
    if about is not None:
        facts.append(("engine", f"{about.engine} {about.version}"))
        kind = "exact: the same rows with every engine, batch and thread count" if about.exact else "not exact"
        facts.append(("exactness", f"{kind}; {about.note}"))
    if tasks:
        facts += _identity_facts(tasks[0])
    for run in runs:
        ended = run.ended or "not ended, or stopped"
        facts.append(("run", f"{run.started} to {ended}"))
    if runs:
        facts.append(("versions", ", ".join(f"{name} {number}" for name, number in runs[-1].versions.items())))
    return facts


def _identity_facts(task: KeptTask) -> Facts:
    """What every task of a study has in common."""
    identity = task.stored.identity
    study = task.study
    subject: dict[str, Any] = identity.get("subject", {})
    facts: Facts = []
    for key in ("network", "graph"):
        if key in subject:
            named = getattr(study, key) or ""
            facts.append((key, f"{named} (SHA-256 {subject[key]})"))
    if "class" in subject:
        facts.append(("class of network", str(subject["class"])))
    data = study.data or f"split {study.samples.split}"
    facts.append(("samples", f"{subject.get('samples', '?')} of {data} (SHA-256 {subject.get('samples digest', '?')})"))
    facts.append(("arithmetic", str(identity.get("arithmetic", study.arithmetic))))
    named = any(question.seeds is not None for question in study.questions.values())
    seeds = "seeds as the study names them" if named else f"seeds from {study.seed}"
    facts.append(("fault stream", f"{identity.get('fault stream', '?')}, {seeds}"))
    return facts


def profiles_told(about: About | None) -> list[dict[str, Any]]:
    """The fault profiles with their sources."""
    found = []
    for profile in () if about is None else about.profiles:
        sources = []
        for source in profile.sources:
            where = "" if source.locator is None else f", {source.locator}"
            how = "measured on hardware" if source.measured else "not measured on hardware"
            sources.append(f"{source.citation}{where} ({source.status}; {how})")
        found.append({"name": profile.name, "title": profile.title, "digest": profile.digest, "sources": sources})
    return found


def reproduce(tasks: Sequence[KeptTask], runs: Sequence[RunTold], folder: str) -> dict[str, Any]:
    """The commands as they were given, the study as a file, and how a part is checked."""
    study = "" if not tasks else _study_text(tasks[0])
    commands: list[str] = []
    for run in runs:
        if run.command not in commands:
            commands.append(run.command)
    if not commands:
        commands = [shlex.join(["hwfault", "campaign", "run", "study.yaml", "--out", folder])]
    check = shlex.join(["hwfault", "campaign", "verify", folder, "--fraction", "0.01"])
    return {"commands": commands, "study": study, "check": check}


def _study_text(task: KeptTask) -> str:
    content = task.study.to_data()
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=90)
    return text
