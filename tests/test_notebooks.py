"""The notebooks are kept with their pictures, open in Colab, and do what they show."""

import re

import nbformat
import notebook_runs
import numpy as np
import pytest

NAMES = ["camera", "drive", "earth", "factory", "quickstart", "scans", "serving", "trust"]
# The way in, and files of a field. The others run in `make notebooks` and `make test-all`: what they show
# is tested beside the code.
RUN_ALWAYS = ["quickstart", "scans"]
LARGEST = 1_500_000  # bytes: more is slow to open on the web

each_notebook = pytest.mark.parametrize("path", notebook_runs.NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_known():
    assert [path.stem for path in notebook_runs.NOTEBOOKS] == NAMES


@pytest.mark.slow
@each_notebook
@pytest.mark.product(kept=lambda path: path.stem in RUN_ALWAYS)
# The kernel's own machinery: it is torn down while its sockets are still being closed.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_does_what_it_shows(path):
    kept = nbformat.read(path, as_version=4)
    for old, new in zip(code_cells(kept), code_cells(notebook_runs.run(path)), strict=True):
        texts = notebook_runs.text(old), notebook_runs.text(new)
        assert notebook_runs.tell_the_same(*texts), texts
        assert len(notebook_runs.pictures(old)) == len(notebook_runs.pictures(new))
        assert all(np.std(picture) > 10 for picture in notebook_runs.pictures(new))  # not one colour


@each_notebook
def test_the_notebook_is_kept_with_pictures_and_without_traces_of_the_machine(path):
    assert path.stat().st_size < LARGEST
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    shown = [picture for cell in cells for picture in notebook_runs.pictures(cell)]
    assert len(shown) >= 3
    assert all(np.std(picture) > 10 for picture in shown)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert set(notebook.metadata.language_info) == {"name"}
    assert not any(cell.metadata for cell in notebook.cells)
    told = "".join(notebook_runs.text(cell) for cell in cells)
    assert not re.search(r"0x[0-9a-f]{6}|/tmp|/home|/root|site-packages|Warning|Traceback", told)
    kinds = {output.get("name", output.output_type) for cell in cells for output in cell.outputs}
    assert kinds <= {"stdout", "display_data", "execute_result"}


@each_notebook
def test_the_notebook_opens_in_colab_and_says_what_a_heatmap_cannot_tell(path):
    notebook = nbformat.read(path, as_version=4)
    assert f"colab.research.google.com/github/tf-gradcam/tf_gradcam/blob/main/notebooks/{path.name}" in str(
        notebook.cells[0].source
    )
    assert "%pip install" in notebook.cells[1].source
    told = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert re.search(r"can't tell|no number can tell", told)


@each_notebook
def test_the_page_of_notebooks_links_it(path):
    page_folder = notebook_runs.FOLDER.parent / "docs" / "notebooks"
    page = page_folder.with_suffix(".md").read_text(encoding="utf-8")
    assert f"](../notebooks/{path.name})" in page
    colab = "https://colab.research.google.com/github/tf-gradcam/tf_gradcam/blob/main/notebooks/"
    assert f"]({colab}{path.name})" in page
    assert f"](notebooks/{path.stem}.jpg)" in page
    assert (page_folder / f"{path.stem}.jpg").stat().st_size < 60_000


@pytest.mark.parametrize(
    ("kept", "now", "same"),
    [
        ("97% are right", "93% are right", True),  # within 5 %
        ("97% are right", "91% are right", False),
        ("IoU 0.03", "IoU 0.05", True),  # within 0.02
        ("after 3 s", "after 5 s", True),  # within 2 of the last digit
        ("after 3 s", "after 6 s", False),
        ("IoU 0.03", "IoU 0.06", False),
        ("moved by -3 mm", "moved by 3 mm", False),
        ("score  9.9", "score 10.1", True),  # a digit more, a space less
        ("score\n----- 9.9", "score\n------ 10.1", True),
        ("in bone: True", "in bone: False", False),
        ("lynx 0.5", "tabby 0.5", False),
        ("1 2", "1 2 3", False),
    ],
)
def test_texts_are_the_same_if_their_words_are_and_their_numbers_nearly(kept, now, same):
    assert notebook_runs.tell_the_same(kept, now) == same


def test_logs_are_not_kept_and_warnings_are_errors():
    log = nbformat.v4.new_output("stream", name="stderr", text="I0000 no accelerator")
    warning = nbformat.v4.new_output("stream", name="stderr", text="UserWarning: too small")
    more = nbformat.v4.new_output("stream", name="stdout", text="one\nINFO:tensorflow:Saved to disk\ntwo\n")
    assert [each.text for each in notebook_runs.keep([log, more])] == ["one\ntwo\n"]
    with pytest.raises(AssertionError, match="too small"):
        notebook_runs.keep([log, warning])
