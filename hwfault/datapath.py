"""Datapath faults on the sites of a network: what each becomes in a plan."""
