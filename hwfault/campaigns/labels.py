"""What tells trials from others of their campaign."""

Label = str | int | float
"""The value of a label: the name of a list of faults or of a site, a bit, an operating point."""
