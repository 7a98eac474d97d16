"""Fault plans: faults resolved against sites, kept as tables and integers."""
