"""The wire format of faults and what it means: sites, processes, when they change. No engine runs here."""
