"""Layers of a network that are added up on integers."""
