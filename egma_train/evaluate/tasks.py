"""Tasks by name: who reads their labels, which prompts they take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.chexpert import read_5x200, read_8x200
from egma_train.evaluate.image_lists import ImageList, locate, read_csv, read_ids, subset
from egma_train.evaluate.prompts import Prompts, read_prompts, shipped_prompts
from egma_train.evaluate.rsna import drawn_share, read_rsna
from egma_train.evaluate.siim import read_siim


@dataclass(frozen=True)
class Task:
    """How a dataset is read.

    Attributes
    ----------
    prompts : str
        Shipped ones.
    draw : callable, optional
        Takes the test images where no list names them.
    """

    read: Callable[[Path, int], ImageList]
    prompts: str
    draw: Callable[[ImageList, int], ImageList] | None = None


TASKS = {
    "chexpert5x200": Task(read_5x200, "5x200"),
    "chexpert8x200": Task(read_8x200, "8x200"),
    "rsna": Task(read_rsna, "8x200", drawn_share),
    "siim": Task(read_siim, "8x200"),
    "csv": Task(lambda path, seed: read_csv(path), "8x200"),
}


def read_images(task: str, labels: Path, listed: Path | None, seed: int) -> ImageList:
    """Read a task's images.

    Parameters
    ----------
    listed : Path, optional
        A file that names the images to take.
    seed : int
        Of what is drawn.

    Raises
    ------
    BadUsageError
        If the task is unknown, or a file cannot be read as its.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    images = TASKS[task].read(labels, seed)
    if listed is not None:
        return subset(images, read_ids(listed), listed.name)
    draw = TASKS[task].draw
    return images if draw is None else draw(images, seed)


def read_test(
    task: str,
    images: Path,
    labels: Path,
    list: Path | None = None,
    prompts: Path | None = None,
    *,
    seed: int,
) -> tuple[ImageList, Sequence[Path | None], Prompts]:
    """Read a task's images, find their files below `images`, and read its or a user's prompts.

    Lists of your own are classified among all classes of the prompts that come with them, or among
    those of their labels.

    Raises
    ------
    BadUsageError
        If something cannot be read, or there is only one class.
    """
    found = read_images(task, labels, list, seed)
    queries = read_prompts(prompts) if prompts else shipped_prompts(TASKS[task].prompts)
    if task == "csv" and prompts:
        found = found.among([*queries.queries])
    if len(found.classes) < 2:
        raise BadUsageError(
            f"{found.name} has one class only, {found.classes[0]}: any answer would be right; give"
            " --prompts with all classes to choose among"
        )
    return found, locate(images, found.ids), queries
