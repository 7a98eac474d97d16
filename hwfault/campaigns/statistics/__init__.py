"""What trials tell of a network under faults: intervals that say what they cover, and when there are enough trials."""
