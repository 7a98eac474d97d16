"""Single flipped weights as sparse changes of integers: every flip of every weight of a network, exactly."""

from hwfault.campaigns.sparse.census import Census, Progress, census
from hwfault.campaigns.sparse.describe import Network, describe
from hwfault.campaigns.sparse.description import Description
from hwfault.campaigns.sparse.engine import Criterion, SparseEngine
from hwfault.campaigns.sparse.flips import Flips, all_flips, flips_of

__all__ = [
    "Census",
    "Criterion",
    "Description",
    "Flips",
    "Network",
    "Progress",
    "SparseEngine",
    "all_flips",
    "census",
    "describe",
    "flips_of",
]
