"""Tasks by name: who reads their labels, which prompts they take."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.datasets.chexpert import read_5x200, read_8x200
from egma_train.evaluate.datasets.image_files import locate, told_absent
from egma_train.evaluate.datasets.image_lists import ImageList, all_classes, read_csv, subset
from egma_train.evaluate.datasets.prompts import Prompts, read_prompts, shipped_prompts
from egma_train.evaluate.datasets.rsna import SPLITS, read_rsna
from egma_train.evaluate.datasets.siim import read_siim


@dataclass(frozen=True)
class Task:
    """How a dataset is read.

    Attributes
    ----------
    read : callable
        Takes the table, the seed and, if there are any, the split.
    prompts : str
        Shipped ones.
    splits : collection of str
        Test images where no list names them; the first is the default.
    official_prompts : str
        What ``official-code`` draws from, where that is not what is shipped.
    """

    read: Callable[..., ImageList]
    prompts: str
    splits: Collection[str] = ()
    official_prompts: str = ""


TASKS = {
    "chexpert5x200": Task(
        read_5x200, "5x200", (), "210, 15, 192, 18 and 54 templates of its five classes"
    ),
    "chexpert8x200": Task(read_8x200, "8x200"),
    "rsna": Task(
        read_rsna, "8x200", tuple(SPLITS), "312 templates of Pneumonia against 5 of No Finding"
    ),
    "siim": Task(read_siim, "8x200"),
    "csv": Task(lambda path, seed: read_csv(path), "8x200"),
}


def shipped_name(task: str) -> str:
    """Name the prompts that come with a task.

    Raises
    ------
    BadUsageError
        If there is no such task.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    return TASKS[task].prompts


def read_images(
    task: str, labels: Path, listed: Path | None, seed: int, split: str | None = None
) -> ImageList:
    """Read a task's images.

    Parameters
    ----------
    listed : Path, optional
        A file that names the images to take.
    seed : int
        Of what is drawn.
    split : str, optional
        One of the task's; by default the first, or all images where a file names them.

    Raises
    ------
    BadUsageError
        If the task is unknown, a file cannot be read as its, or a class has no image.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    splits = tuple(TASKS[task].splits)
    if split and not splits:
        raise BadUsageError(f"{task} has no --split; --list FILE names the images to take")
    if split and listed:
        raise BadUsageError("--split and --list each name the images to take; give one")
    if split and split not in splits:
        raise unknown_name("split", split, splits)
    more = [split or ("all" if listed else splits[0])] if splits else []
    images = TASKS[task].read(labels, seed, *more)
    if listed is not None:
        images = subset(images, listed)
    return images if task == "csv" else all_classes(images)


def read_test(
    task: str,
    images: Path,
    labels: Path,
    list: Path | None = None,
    prompts: Path | None = None,
    *,
    seed: int,
    split: str | None = None,
    protocol: str | None = None,
) -> tuple[ImageList, Sequence[Path | None], Prompts]:
    """Read a task's images, find their files below `images`, and read its or a user's prompts.

    Lists of your own are classified among all classes of the prompts that come with them, or among
    those of their labels.

    Raises
    ------
    BadUsageError
        If something cannot be read or no image is found, there is only one class, or the protocol's
        prompts are not shipped.
    """
    found = read_images(task, labels, list, seed, split)
    if protocol == "official-code" and not prompts and (others := TASKS[task].official_prompts):
        lack = f"official-code on {task} draws from {others}, which are not shipped"
        if task == "rsna":  # five against five, nothing would be drawn: it would be `paper`
            raise BadUsageError(f"{lack}: give them by --prompts FILE, or take --protocol paper")
        found = replace(found, notes=(*found.notes, f"{lack}; here from {task}'s shipped ones"))
    queries = read_prompts(prompts) if prompts else shipped_prompts(TASKS[task].prompts)
    if task == "csv" and prompts:
        found = found.among([*queries.queries])
    if len(found.classes) < 2:
        raise BadUsageError(
            f"{found.name} has one class only, {found.classes[0]}: any answer would be right; give"
            " --prompts with all classes to choose among"
        )
    paths = locate(images, found.ids)
    if not any(paths):
        raise BadUsageError(told_absent(images, found.ids))
    return found, paths, queries
