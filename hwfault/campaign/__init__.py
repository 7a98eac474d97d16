"""Campaigns: many trials under faults, their statistics, and the picture of them."""

from hwfault.campaign.evaluate import Trials, evaluate, sweep, write_results
from hwfault.campaign.picture import draw_accuracy

__all__ = ["Trials", "draw_accuracy", "evaluate", "sweep", "write_results"]
