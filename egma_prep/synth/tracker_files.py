"""Gaze as eye trackers' programs export it (FORMATS 14), in text of our own making."""

from collections.abc import Callable
from typing import NamedTuple

from .gaze import Fixation
from .readings import PhantomImage

Shown = tuple[float, float, float, float]


class PhantomScreen(NamedTuple):
    """The laboratory's screen."""

    width_px: int = 1920
    height_px: int = 1080
    width_mm: int = 531
    distance_mm: int = 650


SCREEN = PhantomScreen()


class GazeFile(NamedTuple):
    """A format: the file's name, ``[gaze]`` of dataset.toml, and who writes one."""

    file: str
    facts: str
    write: Callable[[list[Fixation], Shown, PhantomImage], str | bytes]


def shown_at(width: int, height: int) -> Shown:
    """Tell where the screen shows an image: 1,000 pixels high, left of the middle."""
    scale = min(1000 / height, 1800 / width)
    return 40.0, 20.0, 40.0 + round(width * scale), 20.0 + round(height * scale)


def on_screen(look: Fixation, shown: Shown, image: PhantomImage) -> tuple[float, float]:
    """Return the screen pixel, centres at integers, of a fixation's image pixel."""
    x0, y0, x1, y1 = shown
    x = x0 + (look.x + 0.5) / image.chest.width * (x1 - x0) - 0.5
    y = y0 + (look.y + 0.5) / image.chest.height * (y1 - y0) - 0.5
    return x, y


def _csv(looks: list[Fixation], _: Shown, __: PhantomImage) -> str:
    lines = [f"{look.begin!r},{look.end!r},{look.x},{look.y}" for look in looks]
    return "\n".join(["begin,end,x,y", *lines, ""])


def _eyelink(looks: list[Fixation], shown: Shown, image: PhantomImage) -> str:
    """Write both eyes' events, the left one's cut short, with blinks and a clock of ms."""
    lines = [
        "** CONVERTED FROM PHANTOM.edf using nothing",
        "** TYPE: EDF_FILE BINARY EVENT TAGGED",
        f"MSG\t0 DISPLAY_COORDS 0 0 {SCREEN.width_px - 1} {SCREEN.height_px - 1}",
        "MSG\t1 SYNCTIME_OF_ANOTHER_KIND",
        "START\t2 \tLEFT\tRIGHT\tEVENTS",
        "EVENTS\tGAZE\tLEFT\tRIGHT\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2",
    ]
    for look in looks:
        x, y = on_screen(look, shown, image)
        begin, end = round(look.begin * 1000), round(look.end * 1000)
        half = (begin + end) // 2
        lines += [
            f"SFIX R   {begin}",
            f"EFIX L   {begin}\t{half}\t{half - begin + 1}\t{x + 9:7.1f}\t{y:7.1f}\t    284",
            f"EFIX R   {begin}\t{end}\t{end - begin + 1}\t{x:7.1f}\t{y:7.1f}\t    310",
            f"EBLINK R {end}\t{end + 1}\t2",
        ]
    return "\n".join([*lines, ""])


def _tobii(looks: list[Fixation], shown: Shown, image: PhantomImage) -> str:
    """Write rows of samples, as Pro Lab does where a comma is the decimal sign; microseconds."""
    lines = [
        "Recording timestamp [μs]\tSensor\tEye movement type\tGaze event duration [ms]"
        "\tEye movement type index\tFixation point X [DACS px]\tFixation point Y [DACS px]"
    ]
    for number, look in enumerate(looks, 1):
        x, y = (f"{at:.1f}".replace(".", ",") for at in on_screen(look, shown, image))
        begin, lasted = round(look.begin * 1e6), round((look.end - look.begin) * 1000)
        kind = f"Fixation\t{lasted}\t{number}"
        lines += [
            f"{begin}\tEye Tracker\t{kind}\t{x}\t{y}",
            f"{begin + 10}\tMouse\t\t\t\t\t",
            f"{begin + 16000}\tEye Tracker\t{kind}\t{x}\t{y}",
            f"{begin + lasted * 1000}\tEye Tracker\tSaccade\t17\t{number}\t\t",
        ]
    return "\r\n".join([*lines, ""])


def _gazepoint(looks: list[Fixation], shown: Shown, image: PhantomImage) -> str:
    """Write all gaze: a fixation's rows grow, and a row between two is valid as none."""
    lines = ["MEDIA_ID,CNT,TIME(PHANTOM),FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV,"]
    for number, look in enumerate(looks, 1):
        screen = on_screen(look, shown, image)
        x, y = (
            (at + 0.5) / side
            for at, side in zip(screen, (SCREEN.width_px, SCREEN.height_px), strict=True)
        )
        lasted = look.end - look.begin
        for share, valid in ((0.4, 1), (1.0, 1), (1.0, 0)):
            time = look.begin + share * lasted
            lines.append(
                f"0,{len(lines)},{time:.5f},{x:.5f},{y:.5f},{look.begin:.5f},{share * lasted:.5f},"
                f"{number},{valid}"
            )
    return "\n".join([*lines, ""])


def _pupil(looks: list[Fixation], shown: Shown, image: PhantomImage) -> str:
    """Write fixations on a surface, the whole screen, a row a frame of the scene's video."""
    lines = [
        "world_timestamp,world_index,fixation_id,start_timestamp,duration,dispersion,norm_pos_x,"
        "norm_pos_y,x_scaled,y_scaled,on_surf"
    ]
    for number, look in enumerate(looks):
        x, y = on_screen(look, shown, image)
        x, y = (x + 0.5) / SCREEN.width_px, 1 - (y + 0.5) / SCREEN.height_px
        told = f"{number},{look.begin:.6f},{(look.end - look.begin) * 1000:.3f},0.9"
        for shift, on in ((-0.001, True), (0.001, True), (3.0, False)):
            at = f"{look.begin},{len(lines)}"
            lines.append(f"{at},{told},{x + shift:.6f},{y:.6f},0,0,{on}")
    return "\n".join([*lines, ""])


def _begaze(looks: list[Fixation], shown: Shown, image: PhantomImage) -> str:
    """Write events of both eyes, the left one's cut short; microseconds."""
    lines = [
        "[BeGaze]",
        "Subject:\tPHANTOM",
        f"Calibration Area:\t{SCREEN.width_px}\t{SCREEN.height_px}",
        "",
        "Table Header for Fixations:",
        "Event Type\tTrial\tNumber\tStart\tEnd\tDuration\tLocation X\tLocation Y\tDispersion X",
        "",
        "Table Header for Blinks:",
        "Event Type\tTrial\tNumber\tStart\tEnd\tDuration",
        "",
    ]
    for number, look in enumerate(looks, 1):
        x, y = on_screen(look, shown, image)
        begin, end = round(look.begin * 1e6), round(look.end * 1e6)
        half = (begin + end) // 2
        lines += [
            f"Fixation L\t1\t{number}\t{begin}\t{half}\t{half - begin}\t{x + 9:.2f}\t{y:.2f}\t20",
            f"Fixation R\t1\t{number}\t{begin}\t{end}\t{end - begin}\t{x:.2f}\t{y:.2f}\t20",
            f"Blink R\t1\t{number}\t{end}\t{end + 1}\t1",
        ]
    return "\n".join([*lines, ""])


GAZE_FILES = {
    "csv": GazeFile(
        "fixations.csv",
        'file = "fixations.csv"\nformat = "csv"\ntime_unit = "s"\nframe = "image_px"',
        _csv,
    ),
    "eyelink": GazeFile("gaze.asc", 'file = "gaze.asc"\nformat = "eyelink"', _eyelink),
    "tobii": GazeFile("gaze.tsv", 'file = "gaze.tsv"\nformat = "tobii"', _tobii),
    "gazepoint": GazeFile(
        "all_gaze.csv", 'file = "all_gaze.csv"\nformat = "gazepoint"', _gazepoint
    ),
    "pupil": GazeFile(
        "fixations_on_surface.csv", 'file = "fixations_on_surface.csv"\nformat = "pupil"', _pupil
    ),
    "begaze": GazeFile("events.txt", 'file = "events.txt"\nformat = "begaze"', _begaze),
}
