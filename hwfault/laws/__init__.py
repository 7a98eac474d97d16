"""Fault models: what each says, and the processes that it becomes at a site."""
