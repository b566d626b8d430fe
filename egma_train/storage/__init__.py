"""Whole files, locks and text that is safe to show."""
