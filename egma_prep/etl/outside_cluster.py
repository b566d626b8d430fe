"""A Dask cluster that somebody else started: who may be trusted there, and with what installed."""

import contextlib
import pkgutil
import sys
from collections.abc import Iterator

from distributed import Client, Security

from egma_prep import __version__
from egma_prep.errors import BadUsageError
from egma_prep.options import ExecutionOptions
from egma_prep.storage.progress import tell

_CONNECT_SECONDS = 10  # a scheduler that is there answers within one
_WORKER_SECONDS = 60  # for a queue that has just started its jobs


@contextlib.contextmanager
def outside_client(options: ExecutionOptions) -> Iterator[Client]:
    """Connect to the scheduler that the options name.

    Raises
    ------
    BadUsageError
        If none answers, its workers do not come, or this package is not there.
    """
    address = options.scheduler
    security = _security(options)
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False, security=security)
    except Exception as error:  # of the network, of certificates, of Dask's own settings
        raise BadUsageError(
            f"no Dask scheduler answers at {address} ({str(error) or type(error).__name__}); start"
            " it, let its certificates and these be of one authority, or leave out --scheduler"
        ) from None
    with client:
        if not address.startswith(("tls://", "inproc://")):
            tell(
                f"{address} is not encrypted: whoever reaches it can read the data and run code as"
                " you; start it with certificates (docs/security.md)",
                sys.stderr,
            )
        _wait_for_a_worker(client, address)
        _check_packages(client, address)
        yield client


def _security(options: ExecutionOptions) -> Security:
    """Take the certificates of the options, else those of Dask's own settings."""
    given = {
        "tls_ca_file": options.tls_ca,
        "tls_client_cert": options.tls_cert,
        "tls_client_key": options.tls_key,
    }
    security = Security(**{name: path for name, path in given.items() if path})
    scheme = options.scheduler.partition("://")[0]
    certificates = all(map(security.get_tls_config_for_role("client").get, ("ca_file", "cert")))
    if scheme == "tls" and not certificates:
        raise BadUsageError(
            f"{options.scheduler} needs certificates: give --tls-ca and --tls-cert (and --tls-key),"
            " or set distributed.comm.tls in Dask's configuration"
        )
    if scheme == "tcp" and security.require_encryption:
        raise BadUsageError(
            f"{options.scheduler} is not encrypted, which certificates or Dask's require-encryption"
            f" demand; give tls{options.scheduler.removeprefix('tcp')}"
        )
    return security


def _wait_for_a_worker(client: Client, address: str) -> None:
    if not client.nthreads():
        tell(f"waiting for workers at {address}", sys.stderr)
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        raise BadUsageError(
            f"the Dask scheduler at {address} has no workers; start some: dask worker {address}"
        ) from None


def _check_packages(client: Client, address: str) -> None:
    """Refuse machines without this package, or with another version of it, before any work.

    Asked by a function of the standard library, as ours would not be found there, and of the
    module that imports all others.
    """
    wanted = pkgutil.resolve_name, "egma_prep.etl.run:__version__"
    found = client.run(*wanted, on_error="return")
    try:
        found[address] = client.run_on_scheduler(*wanted)
    except Exception as error:  # whatever an import there raises
        found[address] = error
    for where, version in found.items():
        if version != __version__:
            raise package_missing(f"{where} has {_other(version)}")


def package_missing(what: object) -> BadUsageError:
    """Say of a machine that it lacks this package, or of what went wrong as it was imported."""
    told = f"a worker has {_other(what)}" if isinstance(what, ImportError) else what
    return BadUsageError(
        f"egma {__version__} must be installed where the Dask scheduler and its workers run, but"
        f" {told}; install it there and start them again"
    )


def _other(found: object) -> str:
    missing = (found.name or "") if isinstance(found, ModuleNotFoundError) else ""
    if missing.partition(".")[0] == "egma_prep":
        return "none"
    if isinstance(found, Exception):
        return f"one that cannot be imported ({type(found).__name__}: {found})"
    return f"version {found}"
