"""Turn radiologists' eye tracking and dictation into sentence-heatmap shards."""

__version__ = "0.1.0"
