"""Run the notebooks; `test_notebooks.py` calls it, and `make notebooks-write`, which keeps the outputs.

    python tests/notebook_runs.py [quickstart serving ...]

Kept are texts, and pictures as JPEG: a PNG of a photograph is ten times as large. What changes from run to
run or tells of the machine is not kept: times, logs on stderr, versions in the metadata.
"""

import base64
import io
import os
import pathlib
import re
import sys
import tempfile
import time

import nbclient
import nbformat
import PIL.Image

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_LOG = re.compile(r"^INFO:.*\n", re.MULTILINE)  # in a notebook TensorFlow logs to stdout
_LINE = re.compile(r"--+")  # below the head of a table
_NUMBER = re.compile(r"-?\d+(?:\.(\d+))?")


def run(path):
    """Return the notebook with the outputs of a run in a new, empty folder and a process of its own."""
    notebook = nbformat.read(path, as_version=4)
    metadata = notebook.metadata.copy()
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = keep(cell.outputs)
    return notebook


def keep(outputs):
    """Return outputs as they are kept, without logs. A warning is an error: the reader would see it."""
    warnings = [each.text for each in outputs if each.get("name") == "stderr" and "Warning" in each.text]
    assert not warnings, warnings
    kept = []
    for output in outputs:
        if output.output_type == "stream":
            output.text = _LOG.sub("", output.text)
            if output.name == "stderr" or not output.text:
                continue
        data = output.get("data", {})
        if "image/png" in data:
            data["image/jpeg"] = _as_jpeg(data.pop("image/png"))
        if "image/jpeg" in data:
            data.pop("text/plain", None)  # "<Figure size 640x480 with 1 Axes>"
            output.metadata = {}
        kept.append(output)
    return kept


def _as_jpeg(png):
    image = PIL.Image.open(io.BytesIO(base64.b64decode(png)))
    paper = PIL.Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image.convert("RGBA").getchannel("A"))
    file = io.BytesIO()
    paper.save(file, "JPEG", quality=85, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def text(cell):
    """Return what a cell prints, and the text of its values."""
    parts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in cell.outputs]
    return "\n".join(parts)


def pictures(cell):
    """Return the pictures of a cell."""
    files = [output.get("data", {}).get("image/jpeg") for output in cell.outputs]
    return [PIL.Image.open(io.BytesIO(base64.b64decode(each))) for each in files if each]


def tell_the_same(kept, now):
    """Return whether two texts have the same words, and nearly the same numbers.

    Processors add in different orders, and after training that shows. So numbers may differ by 5 %, by 0.02
    (of shares and correlations near 0), or by 2 in the last digit that is printed. How many spaces or dashes
    stand together does not count, as a number may be one digit longer.
    """
    kept, now = (_LINE.sub("--", each) for each in (kept, now))
    if _NUMBER.sub("0", kept).split() != _NUMBER.sub("0", now).split():
        return False
    for old, new in zip(_NUMBER.finditer(kept), _NUMBER.finditer(now), strict=True):
        unit = 10.0 ** -len(old[1] or "")
        if abs(float(old[0]) - float(new[0])) > max(0.05 * abs(float(old[0])), 0.02, 2 * unit) + 1e-9:
            return False
    return True


def _write_cover(notebook, path):
    """Write the last of the widest pictures, small, for docs/notebooks.md."""
    shown = [each for cell in notebook.cells if cell.cell_type == "code" for each in pictures(cell)]
    cover = max(reversed(shown), key=lambda picture: picture.width)
    cover.thumbnail((480, 480))
    cover.save(path, quality=80, optimize=True)


def main(names):
    """Run notebooks, all without `names`, and keep their outputs."""
    for path in NOTEBOOKS:
        if not names or path.stem in names:
            started, before = time.time(), os.times()
            notebook, after = run(path), os.times()
            nbformat.write(notebook, path)
            _write_cover(notebook, FOLDER.parent / "docs" / "notebooks" / f"{path.stem}.jpg")
            cpu = sum(after[2:4]) - sum(before[2:4])
            print(f"{path.name}: {time.time() - started:.0f} s, {cpu:.0f} s of CPU")


if __name__ == "__main__":
    main(sys.argv[1:])
