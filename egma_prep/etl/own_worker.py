"""Imported first by the worker processes that a run starts, never in a user's process."""

import contextlib
import os
from pathlib import Path

from egma_prep.etl.own_process import hide_torch

hide_torch()
# What fails here is told by the driver, in a line.
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
# Where memory runs out, let the kernel end a worker rather than the driver, which starts another.
with contextlib.suppress(OSError):
    Path("/proc/self/oom_score_adj").write_text("500")
