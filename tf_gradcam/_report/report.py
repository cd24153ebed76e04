"""Write one HTML file of a run over a data set: `write_report`. Users and the command `report` call it."""

import concurrent.futures
import json
import os
import pathlib
from typing import Any

from tf_gradcam._checks import is_whole
from tf_gradcam._files import write_file
from tf_gradcam._report.page import make_page
from tf_gradcam._report.rows import read_run
from tf_gradcam._report.thumbnails import read_thumbnail

_REPORT_ENDING = "-report.html"
_EVALUATION_FILE = "evaluation.json"  # of `tf-gradcam evaluate`


def write_report(
    folder: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    photos: str | os.PathLike | None = None,
    most: int = 1000,
    title: str | None = None,
) -> pathlib.Path:
    """Write one HTML file of a run over a data set.

    The file holds all that it shows. It opens without a network in any browser of today, and prints to PDF.
    It has the run's manifest, a summary, the photographs beside their heatmaps with filters and sliders, the
    mean heatmap of each class, images that were explained for two classes, and the trust table, if
    `evaluation.json` of `tf-gradcam evaluate` lies in the folder. First come images whose explained class is
    not the model's first one, then those of the lowest probability.

    The same rows and photographs give the same bytes.

    Args:
        folder: what `explain_dataset` or `tf-gradcam run` wrote to.
        out: the file to write; `None` for `FOLDER-report.html`, beside the folder: in it, a reader
            of Parquet would take the page for a part.
        photos: the folder that relative paths of photographs start from; `None` for the current one. A
            photograph that is missing is said so, and its heatmap is still shown.
        most: number of images to show. 1,000 take less than 25 MB. The summary counts all.
        title: the page's title; `None` for one with the model's name.

    Returns:
        The path of the file.

    Raises:
        ImportError: if pyarrow is not installed: `pip install "tf_gradcam[scale]"`.
        ValueError: if the folder holds no run, or a damaged one; or if `out` is a folder.
        OSError: if the file can't be written; an earlier one is then unchanged.

    Example:

    ```python
    tf_gradcam.explain_dataset(cam, "photographs/", "maps/")
    tf_gradcam.write_report("maps/")  # maps-report.html
    ```
    """
    if not is_whole(most) or most < 1:
        raise ValueError(f"`most` must be a whole number from 1. Received: most={most!r}")
    folder = pathlib.Path(folder)
    if out is None:
        whole = pathlib.Path(os.path.abspath(folder))
        out = (folder if folder.name == whole.name else whole).with_name(whole.name + _REPORT_ENDING)
    out = pathlib.Path(out)
    if out.is_dir():
        raise ValueError(
            f"`out` must be the file to write. Received: {str(out)!r}, which is a folder. Name a file in it: "
            f"{str(out / (folder.resolve().name + _REPORT_ENDING))!r}"
        )
    above = next(each for each in out.parents if each.exists())
    if not above.is_dir():
        raise ValueError(
            f"`out` must be a file in a folder. Received: {str(out)!r}, and {str(above)!r} is no folder. "
            "Choose another folder."
        )
    run = read_run(folder, int(most))
    evaluation = _read_evaluation(folder / _EVALUATION_FILE)
    start = None if photos is None else pathlib.Path(photos)
    # OpenCV lets others work while it decodes. More threads would hold more large photographs at once.
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        thumbnails = list(pool.map(lambda row: read_thumbnail(row, start), [*run.shown, *run.errors]))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, make_page(run, thumbnails, evaluation, title).encode())
    return out


def _read_evaluation(path) -> dict[str, Any] | None:
    """Return what `tf-gradcam evaluate` wrote, if it has a trust table."""
    if not path.exists():
        return None
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        about = {name: evaluation.get(name) for name in ("method", "layer")}
        checks = [dict(check) for check in evaluation["trust"]["checks"]] if "trust" in evaluation else []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"`folder` may hold {_EVALUATION_FILE} of `tf-gradcam evaluate` only. Received: {path}, which is "
            "damaged or another file. Remove it, or evaluate again."
        ) from error
    return {**about, "checks": checks} if checks else None
