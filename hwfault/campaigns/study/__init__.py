"""Studies: what `hwfault campaign` is asked, read from a file of YAML, and the points that its questions stand for."""
