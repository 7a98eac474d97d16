"""Campaigns: many trials under faults, their statistics, and the picture of them."""

from hwfault.campaign.campaign import Campaign
from hwfault.campaign.evaluate import evaluate, sweep, write_results
from hwfault.campaign.picture import draw_accuracy, draw_losses
from hwfault.campaign.points import Point
from hwfault.campaign.store import Store
from hwfault.campaign.trials import Trial, Trials

__all__ = [
    "Campaign",
    "Point",
    "Store",
    "Trial",
    "Trials",
    "draw_accuracy",
    "draw_losses",
    "evaluate",
    "sweep",
    "write_results",
]
