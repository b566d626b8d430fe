"""Imported first by the worker processes that a run starts, never in a user's process."""

from egma_prep.own_process import hide_torch

hide_torch()
