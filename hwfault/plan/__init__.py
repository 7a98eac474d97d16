"""Fault plans: faults resolved against sites, kept as tables and integers."""

from hwfault.moved import moved_names

__getattr__ = moved_names("hwfault.plan")
