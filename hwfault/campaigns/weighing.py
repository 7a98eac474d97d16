"""How the trials of single flips are divided among strata: scored once, kept in the store, told to every worker."""

import json
from collections.abc import Mapping
from typing import Any

from hwfault.campaigns.database import Database, digest_of
from hwfault.campaigns.study.space import FaultSpace
from hwfault.campaigns.study.strata import Strata, strata_of
from hwfault.campaigns.subject import Score
from hwfault.errors import FileError

Weights = dict[str, tuple[int, ...]]
"""The weights of the strata of fault spaces, by the digest of what they were found from."""

_KEY = "strata"


class Weighing:
    """The strata of fault spaces of what `about` tells; `score` is asked where no `weights` are known.

    There are so many `samples`, and the first trial has the key `first`.
    """

    def __init__(
        self, score: Score, about: Mapping[str, Any], samples: int, first: int, weights: Weights | None
    ) -> None:
        self._score = score
        self._about = dict(about)
        self._samples = samples
        self._first = first
        self.weights: Weights = dict(weights or {})

    def strata(self, space: FaultSpace) -> Strata | str:
        """The strata of a space, as they were weighed once; or why there are none."""
        of = [[site.name, site.words, site.bit_width] for site in space.sites]
        digest = digest_of(self._about | {"sites": of})
        if digest not in self.weights:
            scores = self._score(space.sites)
            if isinstance(scores, str):
                return scores
            self.weights[digest] = strata_of(space, scores, self._samples, self._first).weights
        widths = tuple(site.bit_width for site in space.sites)
        return Strata(space.ends, widths, self.weights[digest], self._samples, self._first)

    def recall(self, database: Database) -> None:
        """Takes the weights that a store keeps: scores found anew, elsewhere, may differ in their last bits.

        To be called before the tasks are asked for. Raises FileError where they are damaged.
        """
        try:
            kept = json.loads(database.said(_KEY) or "{}")
            self.weights |= {str(key): tuple(int(weight) for weight in weights) for key, weights in kept.items()}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise FileError(f"{database.path}: its strata cannot be read ({error}); the file is damaged") from None

    def keep(self, database: Database) -> None:
        """Keeps the weights in a store."""
        if self.weights:
            database.say(_KEY, json.dumps(self.weights))
