"""Fault plans: which process strikes which site, in tables and integers only."""

from hwfault.plan.batch_axes import BatchAxis
from hwfault.plan.fault_plan import FaultPlan, Law, resolve
from hwfault.plan.processes import Process, Site, SiteList, SitePlan

__all__ = ["BatchAxis", "FaultPlan", "Law", "Process", "Site", "SiteList", "SitePlan", "resolve"]
