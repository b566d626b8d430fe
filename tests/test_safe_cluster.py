"""Nobody else gets into a run's cluster, and nobody waits for workers that will not come."""

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import distributed
import psutil
import pytest
from conftest import PATIENCE_S, egma_prep
from distributed import Client, LocalCluster, Security, Status
from tables import contents

from egma_prep.errors import BadUsageError
from egma_prep.etl import cluster, memory, outside_cluster, own_cluster, render_again, run
from egma_prep.etl.cluster import dask_client, each_done
from egma_prep.options import ExecutionOptions

ENCRYPTED = {"distributed.comm.require-encryption": True}

# Becomes nobody, reads /proc/net/tcp as anybody may, knocks at every door, prints what opened.
_INTRUDER = """
import encodings.idna, json, os, socket, ssl, sys, tempfile  # Python may be closed to nobody
task = json.load(sys.stdin)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
opened = []

def listening():
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            for line in list(lines)[1:]:
                cells = line.split()
                if cells[3] == "0A":
                    yield int(cells[1].rpartition(":")[2], 16)

def knock(port, context, says):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            with context.wrap_socket(plain) if context else plain as door:
                door.sendall(says)
                return door.recv(100)
    except OSError:  # a refused handshake, a closed connection
        return b""

def stranger():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

with tempfile.NamedTemporaryFile("w", suffix=".pem") as own:
    own.write(task["key"] + task["certificate"])
    own.flush()
    forger = stranger()
    forger.load_cert_chain(own.name)
ports = sorted(set(listening()) & set(task["ports"]))
for port in ports:
    for name, context in (("plain", None), ("without", stranger()), ("with another", forger)):
        for says in (b"GET /info/main/workers.html HTTP/1.0\\r\\n\\r\\n", b"\\0" * 64):
            answer = knock(port, context, says)
            # An alert is how TLS refuses.
            if answer and not answer.startswith(b"\\x15"):
                opened.append([port, name, repr(answer)])
for folder, _, names in os.walk(task["folder"]):
    opened += [os.path.join(folder, name) for name in names]
for pid in task["pids"]:
    with open(f"/proc/{pid}/cmdline") as line:
        if "PRIVATE KEY" in line.read():
            opened.append(f"arguments of {pid}")
    if os.access(f"/proc/{pid}/environ", os.R_OK):
        opened.append(f"environment of {pid}")
print(json.dumps({"ports": ports, "opened": opened}))
"""


def own_processes() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def listening(processes: list[psutil.Process]) -> set[int]:
    """Ports at which processes wait for connections."""
    return {port for one in processes for port in _ports(one)}


def _ports(process: psutil.Process) -> Iterator[int]:
    look = getattr(process, "net_connections", None) or process.connections  # psutil before 6
    with contextlib.suppress(psutil.NoSuchProcess):
        yield from (one.laddr.port for one in look("tcp") if one.status == psutil.CONN_LISTEN)


def intrude(folder: Path, before: set[int]) -> dict[str, Any]:
    processes = own_processes()
    theirs = Security.temporary()
    task = {
        "ports": sorted(listening(processes) - before),
        "pids": [one.pid for one in processes],
        "folder": str(folder),
        "key": theirs.tls_client_key,
        "certificate": theirs.tls_client_cert,
    }
    done = subprocess.run(
        [sys.executable, "-c", _INTRUDER], input=json.dumps(task), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answers(port: int, security: Security) -> bool:
    """Whether a server speaks to whom it trusts."""
    context = security.get_connection_args("client")["ssl_context"]
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain) as door,
    ):
        return bool(door.recv(1))


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A folder that others may enter; pytest's own lie in one that is closed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        Path(home).chmod(0o755)
        yield Path(home)


@pytest.mark.needs_root
@pytest.mark.fault(
    "another user of the machine while a run, a rendering or a repair is at work",
    "a process of another user connects to every port that they listen on, plainly, by TLS without"
    " a certificate and with one of its own, and walks OUT",
    "nothing answers, nothing can be listed or read",
)
def test_another_user_gets_in_nowhere(
    phantom: Path, clean_out: Path, open_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    before, seen, trusted = listening(own_processes()), [], []
    real = cluster.each_done

    def watched(client: Client, *rest: Any) -> Iterator[Any]:
        for number, one in enumerate(real(client, *rest)):
            if not number:
                seen.append(intrude(out, before))
                ports = seen[-1]["ports"]
                trusted.append([answers(port, client.security) for port in ports])
            yield one

    monkeypatch.setattr(run, "each_done", watched)
    monkeypatch.setattr(render_again, "each_done", watched)
    out = open_home / "out"
    to_out = ("--out", out, "--workers", "1")
    with dask.config.set(ENCRYPTED):  # costs an embedded cluster nothing
        assert egma_prep("run", phantom, *to_out, "--sigma", 8).exit_code == 0
        assert egma_prep("render-heatmaps", *to_out, "--sigma", 16).exit_code == 0
        next(out.glob("shards/*")).unlink()
        assert egma_prep("verify", "--out", out, "--repair").exit_code == 0
    assert contents(out) == contents(clean_out)
    assert [one["opened"] for one in seen] == [[], [], []]
    assert [len(one["ports"]) >= 3 for one in seen] == [True] * 3  # scheduler, nanny, worker
    assert all(map(all, trusted)), "a door that opens to nobody proves nothing"


def test_threads_listen_to_nobody(tmp_path: Path) -> None:
    before = listening(own_processes())
    options = ExecutionOptions(processes=False, workers=2)
    with dask.config.set(ENCRYPTED), dask_client(options, tmp_path / "scratch") as client:
        assert client.submit(abs, -1).result() == 1
        assert listening(own_processes()) == before


# -- clusters of somebody else --------------------------------------------------------------------


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A cluster that speaks TLS only, and the options that it wants."""
    home, security = tmp_path_factory.mktemp("certificates"), Security.temporary()
    texts = {
        "tls_ca": security.tls_ca_file,
        "tls_cert": security.tls_client_cert,
        "tls_key": security.tls_client_key,
    }
    for name, text in texts.items():
        (home / name).write_text(str(text))
    with LocalCluster(
        1,
        threads_per_worker=1,
        processes=False,
        protocol="tls://",
        security=security,
        dashboard_address=":0",
    ) as there:
        yield there.scheduler_address, {name: str(home / name) for name in texts}


def flags(certificates: dict[str, str]) -> list[str]:
    return [
        text
        for name, path in certificates.items()
        for text in ("--" + name.replace("_", "-"), path)
    ]


def test_a_cluster_with_certificates_is_used_by_who_has_one(
    encrypted: tuple[str, dict[str, str]], phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    address, certificates = encrypted
    result = egma_prep(
        "run", phantom, "--out", tmp_path / "out", "--scheduler", address, *flags(certificates)
    )
    assert result.exit_code == 0, result.output
    assert "not encrypted" not in result.output
    assert contents(tmp_path / "out") == contents(clean_out)
    settings = {
        "distributed.comm.tls.ca-file": certificates["tls_ca"],
        "distributed.comm.tls.client.cert": certificates["tls_cert"],
        "distributed.comm.tls.client.key": certificates["tls_key"],
    }
    options = ExecutionOptions(scheduler=address)
    with dask.config.set(settings), dask_client(options, tmp_path) as client:
        assert client.submit(abs, -1).result() == 1


def test_a_cluster_that_is_not_encrypted_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with LocalCluster(
        1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0"
    ) as there:
        options = ExecutionOptions(scheduler=there.scheduler_address)
        with dask_client(options, tmp_path) as client:
            assert client.submit(abs, -1).result() == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{there.scheduler_address} is not encrypted: whoever reaches it" in line
        with (
            dask.config.set(ENCRYPTED),
            pytest.raises(BadUsageError, match=r"not encrypted.*demand; give tls://127"),
            dask_client(options, tmp_path),
        ):
            pass


WRONG: dict[str, tuple[Callable[[dict[str, str]], dict[str, str]], str]] = {
    "no certificate": (lambda right: {}, "needs certificates: give --tls-ca"),
    "no authority": (
        lambda right: right | {"tls_ca": ""},
        "needs certificates: give --tls-ca",
    ),
    "a key that is no key": (
        lambda right: right | {"tls_key": right["tls_ca"]},
        "no Dask scheduler answers",
    ),
    "a file that is not there": (
        lambda right: right | {"tls_cert": "/nowhere/cert.pem"},
        "execution.tls_cert is '/nowhere/cert.pem', which is no file to read",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_certificates_that_cannot_do_are_told_in_a_line(
    name: str, encrypted: tuple[str, dict[str, str]], phantom: Path, tmp_path: Path
) -> None:
    change, says = WRONG[name]
    address, certificates = encrypted
    given = {name: path for name, path in change(certificates).items() if path}
    result = egma_prep(
        "run", phantom, "--out", tmp_path / "out", "--scheduler", address, *flags(given)
    )
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert says in line


def test_a_cluster_refuses_certificates_of_another_authority(
    encrypted: tuple[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_cluster, "_CONNECT_SECONDS", 1)
    theirs = Security.temporary()
    for name in ("tls_ca_file", "tls_client_cert", "tls_client_key"):
        (tmp_path / name).write_text(str(getattr(theirs, name)))
    options = ExecutionOptions(
        scheduler=encrypted[0],
        tls_ca=str(tmp_path / "tls_ca_file"),
        tls_cert=str(tmp_path / "tls_client_cert"),
        tls_key=str(tmp_path / "tls_client_key"),
    )
    with (
        pytest.raises(BadUsageError, match="certificates and these be of one authority"),
        dask_client(options, tmp_path),
    ):
        pass


# -- workers that are not there -------------------------------------------------------------------


def pause(dask_worker: Any) -> None:
    dask_worker.status = Status.paused


@pytest.mark.fault(
    "no worker is left, or all are paused",
    "the only worker of a cluster retires; Dask pauses it, as it does where memory is short",
    "one line, exit 2, instead of waiting for ever",
)
@pytest.mark.parametrize("gone", [False, True], ids=["paused", "gone"])
def test_nobody_waits_for_workers_that_will_not_work(
    gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(cluster, "_IDLE_SECONDS", 0.5)
    alone = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "memory_limit": 0}
    with LocalCluster(**alone, dashboard_address=":0") as there, Client(there) as client:
        if gone:
            client.retire_workers()
        else:
            client.run(pause)
        says = "no worker is left" if gone else "paused all 1 workers"
        with pytest.raises(BadUsageError, match=f"{says}.*goes on from here"):
            list(each_done(client, abs, deque([(-1,)])))


# Root is never refused a process; of its capabilities those stay by which Python is read.
_AS_NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
_AS_NOBODY += ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
CANNOT_START = {
    "few files": ((), resource.RLIMIT_NOFILE, 24),
    "few threads": (_AS_NOBODY, resource.RLIMIT_NPROC, 9),
}


@pytest.mark.needs_root
@pytest.mark.fault(
    "workers that cannot start",
    "RLIMIT_NOFILE of 24; another user's RLIMIT_NPROC of 9",
    "one line, exit 2",
)
@pytest.mark.parametrize("name", CANNOT_START)
def test_workers_that_cannot_start_are_told_in_a_line(
    name: str, phantom: Path, open_home: Path
) -> None:
    if distributed.__version__ < "2026":
        pytest.skip("distributed before 2026 waits for ever for workers that cannot start")
    around, limit, number = CANNOT_START[name]
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, by setpriv")
    shutil.copytree(phantom, open_home / "data")
    for one in (open_home, *open_home.rglob("*")):
        os.chown(one, 65534, 65534)
    program = (sys.executable, "-c", "from egma_prep.cli import main; main()", "run")
    done = subprocess.run(
        [*around, *program, open_home / "data", "--out", open_home / "out", "--workers", "2"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(limit, (number, number)),
    )
    assert done.returncode == 2, done.stderr
    assert "workers cannot be started here" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.fault(
    "a clock that jumps while workers start",
    "what Dask raises then, a timeout without a word",
    "one line, exit 2",
)
def test_a_timeout_without_words_is_told(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(own_cluster, "SpecCluster", late)
    result = egma_prep("run", phantom, "--out", tmp_path / "out", "--workers", 1)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "workers cannot be started here (TimeoutError)" in line


# -- as many as memory allows ---------------------------------------------------------------------

GROUPS = {
    "none": ("0::/a/b", {}, None),
    "version 2": ("0::/a/b", {"a/memory.max": "7000", "a/b/memory.max": "max"}, 7000),
    "version 2, throttled": ("0::/a", {"a/memory.high": "6000", "a/memory.max": "7000"}, 6000),
    "version 2 beside version 1": ("0::/a", {"unified/a/memory.max": "7000"}, 7000),
    "version 1": ("4:cpu,memory:/a/b", {"memory/a/b/memory.limit_in_bytes": "5000"}, 5000),
    "of another controller": ("4:cpu:/a", {"cpu/a/memory.limit_in_bytes": "5000"}, None),
    "a container's": ("0::/host/pod", {"memory.max": "4000"}, 4000),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_limit_of_a_group_or_of_one_above_it_is_found(name: str, tmp_path: Path) -> None:
    own, files, limit = GROUPS[name]
    (tmp_path / "self").write_text(f"9:name=systemd:/x\n{own}\n")
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")
    found = memory.allowed_memory(tmp_path / "self", tmp_path)
    assert found == limit if limit else found > 10**7


def test_no_more_workers_start_than_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(own_cluster, "allowed_memory", lambda: 700 * 10**6)
    assert own_cluster.default_workers() == 1
    with dask_client(ExecutionOptions(workers=8), tmp_path / "scratch") as client:
        assert len(client.nthreads()) == 1
        limits = client.run(lambda dask_worker: dask_worker.memory_manager.memory_limit)
        assert [*limits.values()] == [None]
    (line,) = capsys.readouterr().err.splitlines()
    assert "8 workers would need 2,090 MB" in line and "700 MB" in line and "starting 1" in line
