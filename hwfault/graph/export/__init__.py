"""A network written as a graph."""
