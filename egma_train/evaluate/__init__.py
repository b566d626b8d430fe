"""Measure trained models under stated protocols: zero-shot, retrieval, grounding, tables."""
