"""Faults attached to a network: hooks, clock, runs, and what is counted meanwhile."""
