"""First turns: at which point of a sweep of nested faults each answer turns, by bisection, and whether it stays so."""
