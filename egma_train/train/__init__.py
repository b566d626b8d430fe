"""From batches of readings to trained weights."""
