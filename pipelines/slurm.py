"""The ETL on SLURM: ``python pipelines/slurm.py JOBS DATA --out OUT [options of egma-prep run]``.

Needs ``pip install dask-jobqueue``. Partition, account and the like belong here or into
``~/.config/dask/jobqueue.yaml`` (https://jobqueue.dask.org); its ``interface`` says which network
scheduler and workers use. They trust certificates that are made for this run alone.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import dask
from dask_jobqueue import SLURMCluster
from distributed import Security

RESOURCES = {"cores": 1, "processes": 1, "memory": "4GB", "walltime": "04:00:00"}
"""Of a job. A worker needs one core and below 1 GB."""
LIFETIME = "235m"
"""After it a worker leaves in good order, before its job's walltime kills it."""
NO_PAGES = "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'"
"""Dask's web pages ask nobody who they are."""


def main() -> int:
    """Start workers as jobs, run, and end the jobs whatever happens."""
    jobs, *arguments = sys.argv[1:]
    os.umask(0o077)
    dask.config.set({"distributed.scheduler.http.routes": []})
    # The home folder is what jobs see too; the folder is its owner's alone.
    with tempfile.TemporaryDirectory(dir=Path.home(), prefix=".egma-") as folder:
        authority, key = certificates(Path(folder))
        roles = ("client", "scheduler", "worker")
        security = Security(
            require_encryption=True,
            tls_ca_file=authority,
            **{f"tls_{role}_cert": authority for role in roles},
            **{f"tls_{role}_key": key for role in roles},
        )
        flags = ["--tls-ca", authority, "--tls-cert", authority, "--tls-key", key]
        with SLURMCluster(
            **RESOURCES,
            security=security,
            scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            worker_extra_args=["--lifetime", LIFETIME, "--no-dashboard"],
            job_script_prologue=[f"export {NO_PAGES}"],
        ) as cluster:
            cluster.scale(jobs=int(jobs))
            command = [sys.executable, "-c", "from egma_prep.cli import main; main()", "run"]
            scheduler = ["--scheduler", cluster.scheduler_address]
            return subprocess.call([*command, *arguments, *scheduler, *flags])


def certificates(folder: Path) -> tuple[str, str]:
    """Write a certificate that is its own authority, and its key."""
    made = Security.temporary()
    texts = {"egma.crt": made.tls_ca_file, "egma.key": made.tls_client_key}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return str(folder / "egma.crt"), str(folder / "egma.key")


if __name__ == "__main__":
    sys.exit(main())
