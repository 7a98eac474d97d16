"""One device of a kind of hardware: its faulty cells measured, drawn, fitted and read from dumps."""
