"""Hostile graphs and calls made at random, against the native library: `make fuzz` and `make race`."""
