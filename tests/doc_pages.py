"""The code blocks and pictures of the README and of the pages in `docs`. The tests of pages use it."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"


def read(page):
    """Return the text of a page, named as in `docs`, or of `README.md`."""
    path = ROOT / page if page == "README.md" else DOCS / page
    return path.read_text(encoding="utf-8")


def every_page():
    """Return the names of all pages: `README.md`, and those in `docs`."""
    return ["README.md", *sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))]


def blocks(page, *languages):
    """Return the code blocks of a page in one of these languages, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def pictures(page):
    """Return the pictures that a page shows, named as it does."""
    return re.findall(r"!\[.+?\]\((.+?)\)", read(page))
