"""What to protect: harm read from single flips, measures with their price, the cheapest plan, its faults, its proof."""
