"""What mkdocs calls to build the site: pages made of files beside `docs`, and links out of `docs`."""

import logging
import os
import pathlib
import re

from mkdocs.structure.files import File

LOG = logging.getLogger("mkdocs.hooks")
ROOT = pathlib.Path(__file__).parent.parent
SOURCE = "https://github.com/tf-gradcam/tf_gradcam/blob/main"
PAGES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
# How pages differ from others in search and layout: what people look for when something fails comes first.
META = {
    "changelog.md": {"search": {"boost": 0.2}},
    "index.md": {"hide": ["toc"]},
    "troubleshooting.md": {"search": {"boost": 4}},
}
# What a browser loads by itself, unlike a link that is clicked.
LOADED = re.compile(
    r'<(?:script|img|iframe|source|video)\b[^>]*\bsrc="(https?:[^"]+)"'
    r'|<link\b(?![^>]*\brel="(?:canonical|prev|next)")[^>]*\bhref="(https?:[^"]+)"'
)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add a page for each file beside `docs`."""
    for page, path in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Return the page with its links to files outside of `docs` turned to GitHub."""
    page.meta.update(META.get(page.file.src_uri, {}))
    own = pathlib.Path(page.file.abs_src_path)

    def turned(match):
        target, anchor = match[1], match[2] or ""
        path = pathlib.Path(os.path.normpath(own.parent / target))
        if not path.exists():
            return match[0]  # mkdocs warns
        name = path.relative_to(ROOT).as_posix()
        names = {file: here for here, file in PAGES.items()}
        if name in names:
            here = names[name]
        elif name.startswith("docs/"):
            here = name.removeprefix("docs/")
        else:
            return f"]({SOURCE}/{name}{anchor})"
        start = pathlib.PurePosixPath(page.file.src_uri).parent.as_posix()
        return f"]({os.path.relpath(here, start)}{anchor})"

    return LINK.sub(turned, markdown)


def on_post_page(output, page, config):
    """Warn, which ends a strict build, if a page loads anything from another host."""
    for script, style in LOADED.findall(output):
        LOG.warning("%s loads %s", page.file.src_uri, script or style)
    return output
