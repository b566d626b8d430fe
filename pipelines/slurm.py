"""The ETL on SLURM: ``python pipelines/slurm.py JOBS DATA --out OUT [options of egma-prep run]``.

Needs ``pip install dask-jobqueue``. Partition, account and the like belong here or into
``~/.config/dask/jobqueue.yaml`` (https://jobqueue.dask.org).
"""

import subprocess
import sys

from dask_jobqueue import SLURMCluster

RESOURCES = {"cores": 1, "processes": 1, "memory": "4GB", "walltime": "04:00:00"}
"""Of a job. A worker needs one core and below 1 GB."""
LIFETIME = "235m"
"""After it a worker leaves in good order, before its job's walltime kills it."""


def main() -> int:
    """Start workers as jobs, run, and end the jobs whatever happens."""
    jobs, *arguments = sys.argv[1:]
    with SLURMCluster(**RESOURCES, worker_extra_args=["--lifetime", LIFETIME]) as cluster:
        cluster.scale(jobs=int(jobs))
        command = [sys.executable, "-c", "from egma_prep.cli import main; main()", "run"]
        return subprocess.call([*command, *arguments, "--scheduler", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(main())
