"""What lies around a run: streams, the working folder, packages, the caller's own settings."""

import copy
import importlib.util
import io
import logging
import os
import pkgutil
import pty
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import dask
import datasets
import matplotlib
import numpy as np
import pydicom
import pytest
import sklearn.manifold  # noqa: F401 - it sets variables of the environment on import
import torch
import transformers
from conftest import PATIENCE_S
from distributed import Client

from egma_prep import open_shards
from egma_prep.errors import BadUsageError
from egma_prep.etl import cluster, own_process
from egma_prep.etl.cluster import dask_client
from egma_prep.etl.render_again import render_heatmaps
from egma_prep.etl.run import run_etl
from egma_prep.etl.verify import verify
from egma_prep.exports.export import export
from egma_prep.look.inspect import draw_reading
from egma_prep.look.report import write_report
from egma_prep.look.scan import scan_tree
from egma_prep.options import ExecutionOptions
from egma_prep.storage.progress import Progress, tell
from egma_train import own_process as own_process_of_training
from egma_train.errors import broken_package
from egma_train.evaluate.compare import Measured
from egma_train.evaluate.datasets.image_lists import ImageList
from egma_train.evaluate.embeddings import write_embeddings
from egma_train.launch import Request, run_training

IN_THREADS = {"execution": {"processes": False, "readings_per_part": 8}}
BINARIES = Path(sys.executable).parent

# -- what cannot be told --------------------------------------------------------------------------


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")

    def isatty(self) -> bool:
        return True


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Callable[[], Any]] = {
    "a terminal that was closed": Gone,
    "a file that was closed": closed,
    "no stream at all (2>&-)": lambda: None,
}


@pytest.mark.parametrize("name", STREAMS)
def test_progress_goes_on_though_it_can_be_shown_to_nobody(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", STREAMS[name]())
    with Progress("readings", 2) as shown:
        shown._shown -= 60  # long ago
        shown.advance(1)
    assert shown.done == 1


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("say", [tell, own_process_of_training.tell])
def test_a_line_that_can_be_told_to_nobody_is_lost(
    name: str, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", STREAMS[name]())
    say("rejected nothing")


LISTENERS = {
    "its terminal is closed": pty.openpty,
    "who reads its output goes away": os.pipe,
    "standard error was closed before it began (2>&-)": pty.openpty,
}
SPEAKER = """
import logging, sys, warnings
from {module} import own_process
with own_process():
    for number in range(2):
        print("out", number, "\\udcff")
        print("err", number, file=sys.stderr)
        warnings.warn("a library warns")
        logging.error("a library logs")
        sys.stdin.readline() if number == 0 else None
    with open(sys.argv[1], "w") as opened:
        assert opened.fileno() > 2, "what a C library says would be written into it"
        opened.write("done")
"""


@pytest.mark.parametrize("module", ["egma_prep.etl.own_process", "egma_train.own_process"])
@pytest.mark.parametrize("how", LISTENERS)
def test_a_command_goes_on_when(how: str, module: str, tmp_path: Path) -> None:
    listener, speaker = LISTENERS[how]()
    shell = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh"] if "2>&-" in how else []
    script = [sys.executable, "-c", SPEAKER.format(module=module), str(tmp_path / "done")]
    job = subprocess.Popen(
        [*shell, *script],
        stdin=subprocess.PIPE,
        stdout=speaker,
        stderr=speaker,
        start_new_session=True,
    )
    os.close(speaker)
    said = b""
    while b"out 0" not in said:
        said += (more := os.read(listener, 1000))
        assert more, said  # it ended
    os.close(listener)
    job.communicate(b"go on\n", timeout=PATIENCE_S)
    assert job.returncode == 0
    assert (tmp_path / "done").read_text() == "done"


@pytest.mark.fault(
    "no standard error from the start (`2>&-`), and another file under its number",
    "synth and run by a shell without it, after a file was opened",
    "each ends as it would have; nothing is written into the file",
)
def test_commands_without_a_standard_error_do_their_work(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("untouched")
    code = """
import os, sys
assert os.open("held", os.O_RDWR) == 2
from egma_prep.cli import main
for command in ("synth tree --readings 3 --small", "run tree --set execution.processes=false"):
    sys.argv[1:] = command.split()
    try:
        main()
    except SystemExit as ended:
        assert ended.code in (0, None), command
    print("ended", command.split()[0], flush=True)
"""
    shell = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    ended = [line for line in done.stdout.splitlines() if line.startswith("ended")]
    assert ended == ["ended synth", "ended run"], done.stdout
    assert (tmp_path / "held").read_text() == "untouched"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("egma-prep", ("run", "data")),
        ("egma-prep", ("inspect",)),
        ("egma-train", ()),
        ("egma-eval", ("grounding", "run")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_working_folder_that_is_gone_is_told_in_one_line(
    script: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = f'rmdir "{gone}" && exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", BINARIES / script, *arguments],
        cwd=gone, capture_output=True, text=True,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"{script}: the working folder is gone") and "; cd to one" in line


def test_a_call_from_a_working_folder_that_is_gone_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(BadUsageError, match="the working folder is gone"):
        run_etl(Path("data"), Path("out"))


# -- packages that are missing or broken ----------------------------------------------------------


def package(root: Path, name: str, **modules: str) -> None:
    (root / name).mkdir(parents=True)
    for module, text in modules.items():
        (root / name / f"{module}.py").write_text(text)


def error_of(text: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Exception:
    monkeypatch.syspath_prepend(root)
    with pytest.raises(Exception) as caught:
        exec(text, {"__name__": "caller"})
    return caught.value


def test_a_package_whose_import_fails_is_named_though_another_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(
        tmp_path,
        "phantom_vision",
        __init__="import phantom_vision.ops",
        ops="""
def register():
    raise RuntimeError("operator nms does not exist\\nand more")
register()
""",
    )
    package(
        tmp_path,
        "phantom_towers",
        __init__="""
try:
    import phantom_vision
except Exception as error:
    raise ModuleNotFoundError("Could not import module 'Tower'") from error
""",
    )
    error = error_of("import phantom_towers", tmp_path, monkeypatch)
    said = str(broken_package(error))
    assert said.startswith("phantom_vision is broken (operator nms does not exist); remove it:")


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = error_of("import phantom_none.inner", tmp_path, monkeypatch)
    assert "phantom_none is not installed; install it: pip install" in str(broken_package(error))


def test_an_error_of_a_run_is_no_broken_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = error_of("def run():\n    raise ValueError('ours')\nrun()", tmp_path, monkeypatch)
    error.__traceback__ = error.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    assert broken_package(error) is None


def test_a_torchvision_that_does_not_fit_is_told_in_one_line(tmp_path: Path) -> None:
    package(tmp_path, "torchvision", __init__="raise RuntimeError('nms does not exist')")
    package(tmp_path, "torchvision-0.1.dist-info")
    (tmp_path / "torchvision-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1\n"
    )
    done = subprocess.run(
        [BINARIES / "egma-train", "--shards", tmp_path, "--out", tmp_path],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    if "holds no shards" in line:
        pytest.skip("this transformers imports no torchvision for its towers")
    assert "torchvision 0.1 is broken (nms does not exist)" in line
    assert "pip uninstall torchvision" in line


# -- a cluster without this package ---------------------------------------------------------------

MISSING = ModuleNotFoundError("No module named 'egma_prep'", name="egma_prep")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (MISSING, "has none"),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), "No module named 'cv2'"),
        ("0.0.1", "has version 0.0.1"),
    ],
    ids=["without egma", "without another package", "with another egma"],
)
@pytest.mark.parametrize("where", ["scheduler", "worker"])
def test_a_cluster_is_refused_before_any_work_if_a_machine_is(
    where: str, found: Any, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = pkgutil.resolve_name

    def resolve_name(name: str) -> Any:
        return found if isinstance(found, str) else raised(found)

    def raised(error: Exception) -> Any:
        raise error

    def run(client: Client, function: Any, *arguments: Any, **_: Any) -> Any:
        assert function is real, "what our own package defines cannot be found there"
        wrong = resolve_name if where == "worker" else real
        try:
            return {"tcp://far:1": wrong(*arguments)}
        except Exception as error:
            return {"tcp://far:1": error}

    def run_on_scheduler(client: Client, function: Any, *arguments: Any) -> Any:
        return (resolve_name if where == "scheduler" else real)(*arguments)

    monkeypatch.setattr(Client, "run", run)
    monkeypatch.setattr(Client, "run_on_scheduler", run_on_scheduler)
    with (
        Client(processes=False, n_workers=1, dashboard_address=None) as there,
        pytest.raises(BadUsageError, match=r"egma .* must be installed where") as refused,
        dask_client(ExecutionOptions(scheduler=there.scheduler.address), tmp_path),
    ):
        pass
    assert says in str(refused.value)
    assert ("far" in str(refused.value)) == (where == "worker")


def test_a_worker_that_came_later_and_lacks_the_package_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*_: Any) -> Iterator[Any]:
        raise MISSING
        yield

    monkeypatch.setattr(cluster, "_each_done", lost)
    with pytest.raises(BadUsageError, match="must be installed where"):
        list(cluster.each_done(None, abs, None))  # type: ignore[arg-type]


# -- the caller's own settings --------------------------------------------------------------------


def settings() -> dict[str, Any]:
    """Take what a user may have set, in Python and in the libraries that we use."""
    names = [None, *logging.root.manager.loggerDict]
    loggers = {
        name: (
            one.level,
            one.disabled,
            one.propagate,
            one.filters[:],
            [
                # Dask's workers keep what they log until they are freed, later than closed.
                handler
                for handler in one.handlers
                if type(handler).__name__ != "DequeHandler"
            ],
        )
        for name in names
        for one in [logging.getLogger(name)]
    }
    return {
        "loggers": loggers,
        # Libraries add filters for their own categories when they are imported.
        "warnings": [one for one in warnings.filters if one[2] in (Warning, UserWarning)],
        "environment": dict(os.environ),
        "working folder": Path.cwd(),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "hidden modules": [name for name, one in sys.modules.items() if one is None],
        "numpy": (np.geterr(), str(np.random.get_state()), np.get_printoptions()),
        "opencv": (cv2.getNumThreads(), cv2.useOptimized()),
        "pydicom": pydicom.config.settings.reading_validation_mode,
        "dask": copy.deepcopy(dask.config.config),
        "datasets": datasets.are_progress_bars_disabled(),
        "matplotlib": (matplotlib.rcParams.copy(), matplotlib.rcParams._get("backend")),
        "torch": (
            torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist(),
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark,
        ),
        "transformers": transformers.logging.get_verbosity(),
    }  # fmt: skip


def test_after_a_call_from_python_all_settings_are_as_before(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Unlike any default, so that to set it to the default is seen too.
    monkeypatch.setattr(logging.getLogger("distributed"), "level", logging.INFO)
    monkeypatch.setattr(logging.getLogger("distributed.client"), "level", logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("transformers"), "level", logging.ERROR)
    cv2.setNumThreads(2)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4000), hard))
    torch.manual_seed(11)
    warnings.simplefilter("error", UserWarning)  # pytest restores the filters
    out = tmp_path / "out"

    def prepare() -> None:
        list(scan_tree(phantom, None, None))
        run_etl(phantom, out, [IN_THREADS], say=lambda _: None)
        render_heatmaps(out, [IN_THREADS, {"render": {"sigma": 8.0}}], say=lambda _: None)
        verify(out, 2, phantom)

    def show() -> None:
        [reading.plot() for reading in list(open_shards(out))[:1]]
        draw_reading(out, None, tmp_path / "drawn.png")
        write_report(out, False)
        export(out, tmp_path / "exported", "hf-dataset")

    def train() -> None:
        small = {"swin_width": 12, "text_width": 32, "text_heads": 2, "projection": 32}
        changes = [{"model": small, "train": {"batch_size": 32, "epochs": 1}}]
        run_training(Request(out, tmp_path, None, None, (), changes, False), lambda _: None)

    def embed() -> None:
        images = ImageList("phantoms", ("a", "b"), ("1", "2", "3"), np.array([0, 1, 1]))
        values = np.eye(3)
        write_embeddings(Measured(images, values, {}), tmp_path / "embedded", 0)

    for call in (prepare, show, train, embed):
        before = settings()
        call()
        after = settings()
        # A library that is imported meanwhile brings loggers of its own.
        after["loggers"] = {name: after["loggers"][name] for name in before["loggers"]}
        for name, value in before.items():
            assert after[name] == value, f"{call.__name__} changes {name}"


def test_sentences_do_not_take_torch_from_the_users_spacy() -> None:
    script = """
from egma_prep.gaze.sentences import sentence_spans
assert len(sentence_spans(["Clear", ".", "Normal", "."], [0, 1, 2, 3], [1, 2, 3, 4])) == 2
from thinc.compat import has_torch
assert has_torch
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_worker_of_our_own_has_one_opencv_thread_and_no_torch(tmp_path: Path) -> None:
    with dask_client(ExecutionOptions(workers=1), tmp_path / "scratch") as client:
        assert client.submit(cv2.getNumThreads).result() == 1
        assert client.submit(importlib.util.find_spec, "torch").result() is None


def test_the_users_own_client_stays_the_one_that_is_asked(tmp_path: Path) -> None:
    with Client(processes=False, n_workers=1, dashboard_address=None) as mine:
        with dask_client(ExecutionOptions(workers=1, processes=False), tmp_path / "scratch"):
            assert Client.current() is mine
        assert Client.current() is mine


def test_a_command_hides_torch_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    with own_process.own_process():
        assert sys.modules["torch"] is None
    assert "torch" not in sys.modules
