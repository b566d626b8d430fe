"""The run: parts, workers, the output folder, and what checks and repeats it."""
