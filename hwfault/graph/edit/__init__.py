"""Passes over graphs: each checks first, then edits a copy."""
