"""A network written as a graph."""

from hwfault.moved import moved_names

__getattr__ = moved_names("hwfault.graph.export")
