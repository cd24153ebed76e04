"""The recipes run from top to bottom, and draw the pictures that they show."""

import pathlib
import re

import matplotlib
import matplotlib.pyplot
import pytest

from tf_gradcam import load_image

RECIPES = pathlib.Path(__file__).parent.parent / "docs" / "recipes"
PAGES = sorted(path for path in RECIPES.glob("*.md") if path.name != "README.md")
SMALLEST, LARGEST = 200, 1400  # pixels along a side of a picture

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def code(page):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return "\n".join(blocks)


def pictures(page):
    return re.findall(r"!\[.+?\]\((.+?)\)", page.read_text(encoding="utf-8"))


def test_there_is_a_recipe_for_each_field():
    made_up = ["defects", "detection", "land_cover", "segmentation", "video", "volume"]
    real = ["brain", "camera", "ct", "inspection", "road", "scene"]
    assert sorted(page.stem for page in PAGES) == sorted([*made_up, *real])


@each_page
def test_a_recipe_is_in_the_index_with_its_picture(page):
    index = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert f"]({page.name}): " in index
    assert f'src="{pictures(page)[0]}"' in index


@each_page
def test_a_recipe_shows_a_picture_and_checks_what_it_says(page):
    assert pictures(page)
    for picture in pictures(page):
        assert (RECIPES / picture).stat().st_size <= 200_000
        sides = load_image(RECIPES / picture).shape[:2]
        assert min(sides) >= SMALLEST
        assert max(sides) <= LARGEST
    assert re.search(r"^assert ", code(page), re.MULTILINE)


# Two train for a minute. What they show has its tests in tests/targets.
@pytest.mark.slow
@each_page
@pytest.mark.product(kept=lambda page: page.stem not in ["detection", "segmentation"])
def test_the_code_of_a_recipe_runs_and_draws_its_picture(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    exec(compile(code(page), page.name, "exec"), {"__name__": page.stem})
    matplotlib.pyplot.close("all")
    for picture in pictures(page):
        written, shown = load_image(tmp_path / picture), load_image(RECIPES / picture)
        assert written.shape == shown.shape
        assert written.std() > 10  # not one colour
