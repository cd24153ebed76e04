"""The notebooks run from top to bottom, and draw what they promise."""

import pathlib

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((pathlib.Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


# How many pictures each draws, and what it prints.
PICTURES = {
    "quickstart": (4, "Egyptian cat"),
    "serving": (3, "`image_bytes` must be JPEG"),
    "trust": (1, "IoU with"),
}


def test_every_notebook_is_known():
    assert [notebook.stem for notebook in NOTEBOOKS] == list(PICTURES)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# The kernel's own machinery: it is torn down while its sockets are still being closed.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_runs_from_top_to_bottom(path):
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    text = "".join(output.get("text", "") for output in outputs)
    assert len(pictures) == PICTURES[path.stem][0]
    assert PICTURES[path.stem][1] in text
    assert not [
        output for output in outputs if output.get("name") == "stderr" and "Warning" in output["text"]
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_kept_without_outputs_and_opens_in_colab(path):
    notebook = nbformat.read(path, as_version=4)
    assert not [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert f"colab.research.google.com/github/tf-gradcam/tf_gradcam/blob/main/notebooks/{path.name}" in str(
        notebook.cells[0].source
    )
    assert "%pip install" in notebook.cells[1].source
