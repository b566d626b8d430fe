"""Test sets: their lists, readers, prompts and tasks."""
