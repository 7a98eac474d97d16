"""Campaigns: many trials under faults, their statistics, and the picture of them."""
