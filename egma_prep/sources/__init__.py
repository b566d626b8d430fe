"""One file a dataset, and what they share."""
