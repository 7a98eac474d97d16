"""The seeds, flips and images that do most harm, each with the command that replays one of its wrong answers."""

import shlex
from typing import NamedTuple

import numpy as np

from hwfault.campaigns.figures import Trials
from hwfault.campaigns.page.cells import Flips
from hwfault.campaigns.page.words import share
from hwfault.campaigns.study.tasks import Draw

MOST = 3
Rows = list[tuple[str, str, str]]


class Worst(NamedTuple):
    """Tables of (what, how bad, command): of trials, which are called `trials_are`, and of images."""

    trials_are: str
    trials: Rows
    images: Rows


def worst_seeds(seen: Trials, folder: str, task: str, draw: Draw) -> Worst:
    """Those of trials whose key is a seed, or the place in a list, each on all images."""
    one, several = ("trial", "listed trials") if draw == "listed" else ("seed", "seeds")
    shares = seen.wrong.mean(1)
    trials: Rows = []
    for place in _largest(shares):
        seed = int(seen.keys[place])
        first = int(seen.wrong[place].argmax())
        trials.append((f"{one} {seed}", f"{share(float(shares[place]))} wrong", explain(folder, task, seed, first)))
    return Worst(f"Worst {several}", trials, _images(seen, folder, task, several))


def worst_flips(seen: Trials, flips: Flips, folder: str, task: str) -> Worst:
    """Those of trials that are single flips: of a census the worst cells and images, of drawn pairs the first seen."""
    if flips.samples is None:
        return _worst_cells(seen, flips, folder, task)
    wrong = np.flatnonzero(flips.events)[:MOST]
    trials: Rows = []
    for place in wrong.tolist():
        key = int(seen.keys[place])
        sample = int(flips.samples[place])
        trials.append((_cell(flips, place), f"image {sample} wrong", explain(folder, task, key, sample)))
    return Worst("Flips seen to matter, in the order drawn", trials, [])


def _worst_cells(seen: Trials, flips: Flips, folder: str, task: str) -> Worst:
    shares = seen.wrong.mean(1)
    trials: Rows = []
    for place in _largest(shares):
        key = int(seen.keys[place])
        first = int(seen.wrong[place].argmax())
        harm = f"{share(float(shares[place]))} of images wrong"
        trials.append((_cell(flips, place), harm, explain(folder, task, key, first)))
    return Worst("Worst flips", trials, _images(seen, folder, task, "flips"))


def _images(seen: Trials, folder: str, task: str, of: str) -> Rows:
    counts = seen.wrong.sum(0)
    rows: Rows = []
    for sample in _largest(counts):
        first = int(seen.keys[int(seen.wrong[:, sample].argmax())])
        harm = f"wrong under {int(counts[sample]):,} of {seen.number:,} {of}"
        rows.append((f"image {sample}", harm, explain(folder, task, first, sample)))
    return rows


def _largest(harm: np.ndarray) -> list[int]:
    """Where the largest numbers stand, those above 0; of equal ones the first."""
    order = np.argsort(-harm, kind="stable")[:MOST].tolist()
    return [place for place in order if harm[place] > 0]


def _cell(flips: Flips, place: int) -> str:
    site, word, bit = flips.space.places(flips.cells[place : place + 1])
    return f"{flips.space.names[int(site[0])]}, word {int(word[0]):,}, bit {int(bit[0])}"


def explain(folder: str, task: str, seed: int, sample: int) -> str:
    """The command that replays one answer site by site, as a shell takes it."""
    return shlex.join(["hwfault", "campaign", "explain", folder, task, str(seed), str(sample)])
