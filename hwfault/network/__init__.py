"""Reading a Brevitas network: its quantizers, sites, batch axes and accumulators."""
