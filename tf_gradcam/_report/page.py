"""The page of a run as one string of HTML: `make_page`. `report` calls it.

All text is escaped. The page's policy lets nothing run but its own script, known by its hash, and nothing
load but the pictures inside it.
"""

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Any

from tf_gradcam._report.cards import draw_cards, draw_pairs, draw_panel, shown_pairs
from tf_gradcam._report.rows import BINS, Run
from tf_gradcam._report.text import class_name, escape, format_number, format_share, table
from tf_gradcam._report.thumbnails import Thumbnail

MOST_CLASSES = 60  # in the table of classes and the mean maps
_LIMITS = (
    "A heatmap shows in which cells of the layer's grid ({height} x {width}) evidence for a score lay: not "
    "what the model saw there, not whether its answer is right, and nothing finer than a cell. An empty "
    "area may still matter, and a plausible map does not make a model sound: that must be measured, as "
    "<code>tf-gradcam evaluate</code> does."
)
_TRUST_COLUMNS = ("check", "baseline", "mean", "low", "high", "counted", "missing")


def make_page(
    run: Run, thumbnails: Sequence[Thumbnail], evaluation: dict[str, Any] | None, title: str | None
) -> str:
    """Return the page.

    Args:
        run: the run.
        thumbnails: of `run.shown` and `run.errors`, in order.
        evaluation: method, layer and checks of a trust table, or `None`.
        title: the title, or `None` for one with the model's name.
    """
    title = title or f"Heatmaps of {run.manifest.get('model', 'a model')}"
    pairs = shown_pairs(run.shown)
    sections = {
        "Summary": _summary(run),
        "What this can't tell": f"<p>{_LIMITS.format(height=run.grid[0], width=run.grid[1])}</p>",
        "Images": _gallery(run, thumbnails),
        "Mean heatmap of each class": _means(run),
        "Class against class": draw_pairs(run.shown, pairs, thumbnails),
        "Trust": _trust(evaluation, run.manifest),
        "Manifest": table(("option", "value"), run.manifest.items()),
    }
    sections = {name: text for name, text in sections.items() if text}
    places = {name: "-".join(name.lower().replace("'", "").split()) for name in sections}
    links = "".join(f'<li><a href="#{places[name]}">{escape(name)}</a></li>' for name in sections)
    body = "\n".join(
        f'<section id="{places[name]}" aria-labelledby="{places[name]}-title">'
        f'<h2 id="{places[name]}-title">{escape(name)}</h2>\n{text}\n</section>'
        for name, text in sections.items()
    )
    return _document(title, _subtitle(run), links, body, run.full_color())


def _document(title, subtitle, links, body, full_color) -> str:
    style, script = _packaged("page.css"), _packaged("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<!doctype html>\n<html lang="en" data-full="{full_color!r}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#images">Skip to the images</a>\n'
        f'<header><h1>{escape(title)}</h1><p>{subtitle}</p><nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'</header>\n<main>\n<p id="plain">Heatmaps, sliders and filters need JavaScript.</p>\n'
        f"{body}\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _packaged(name) -> str:
    return (importlib.resources.files("tf_gradcam._report") / name).read_text(encoding="utf-8")


def _hash(text) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _subtitle(run) -> str:
    manifest, count = run.manifest, run.explained + run.failed
    return (
        f"{count:,} {'image' if count == 1 else 'images'}, method {escape(manifest.get('method', ''))}, "
        f"layer {escape(manifest.get('layer', ''))}"
    )


# Sections


def _summary(run) -> str:
    counts = {
        "explained": run.explained,
        "with an error": run.failed,
        "classes": sum(key is not None for key in run.classes),
        "explained for a class that is not the model's first": run.not_first,
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in counts.items())
    notes = (
        []
        if run.is_finished
        else ["The run is not finished: the last rows wait in its journal. The same command goes on with it."]
    )
    left_out = max(0, run.explained - len(run.shown))
    if left_out:
        notes.append(
            f"The page shows the {len(run.shown):,} images that need a look first; {left_out:,} are left "
            "out. Counts, classes and mean heatmaps are of all."
        )
    if run.failed > len(run.errors):
        notes.append(f"Of the errors, the first {len(run.errors):,} are shown.")
    paragraphs = "".join(f'<p class="note">{note}</p>' for note in notes)
    columns = f'<div class="columns">{_histogram(run)}{_classes(run)}</div>'
    return f'<dl class="tiles">{tiles}</dl>{paragraphs}{columns}'


def _histogram(run) -> str:
    """Return the number of images by probability, as bars and as a table for those who can't see them."""
    highest = max(run.histogram)
    if not highest:
        return ""
    rows = []
    for place, count in enumerate(run.histogram):
        width = f"{100 * count / highest:.2f}"
        bar = '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        bar += f'<rect width="{width}" height="8"/></svg>'
        low, high = place * 100 // BINS, (place + 1) * 100 // BINS
        rows.append(
            f'<tr><th scope="row">{low} to {high} %</th><td class="wide">{bar}</td><td>{count:,}</td></tr>'
        )
    return (
        '<div class="block"><h3>Probability of the explained class</h3><table class="bars"><thead><tr>'
        '<th scope="col">probability</th><th scope="col" class="wide"><span class="hidden">bar</span></th>'
        f'<th scope="col">images</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _by_count(run) -> list[tuple[Any, Any]]:
    classes = [item for item in run.classes.items() if item[0] is not None]
    return sorted(classes, key=lambda item: (-item[1].count, item[0]))


def _classes(run) -> str:
    rows = [
        (
            class_name(key, sums.label),
            f"{sums.count:,}",
            format_share(sums.mean_probability()),
            f"{sums.not_first:,}",
        )
        for key, sums in _by_count(run)[:MOST_CLASSES]
    ]
    if not rows:
        return ""
    header = ("class", "images", "mean probability", "not first")
    return (
        f'<div class="block"><h3>Classes</h3>{_scrolled(table(header, rows), "Table of classes")}'
        f"{_left_out_classes(run)}</div>"
    )


def _scrolled(text, about) -> str:
    """Return what may be larger than its place; the keyboard can scroll it, too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{about}">{text}</div>'


def _left_out_classes(run) -> str:
    count = len(_by_count(run)) - MOST_CLASSES
    return f'<p class="note">{count:,} classes with fewer images are left out.</p>' if count > 0 else ""


def _gallery(run, thumbnails) -> str:
    keys = {
        row.values["target"]: row.values["label"] for row in run.shown if row.values["target"] is not None
    }
    options = "".join(
        f'<option value="{key}">{escape(class_name(key, label))}</option>'
        for key, label in sorted(keys.items(), key=lambda item: (class_name(*item).casefold(), item[0]))
    )
    has_probability = any(row.values["probability"] is not None for row in run.shown)
    controls = (importlib.resources.files("tf_gradcam._report") / "controls.html").read_text(encoding="utf-8")
    # Each place is named once in the template; braces are nowhere else in it.
    controls = controls.format(
        classes=options,
        of_probability="" if has_probability else "hidden",
        full=format_number(run.full_color()),
    )
    return (
        "<p>First come images whose explained class is not the model's first, then the least certain. The "
        "right picture of each shows where the evidence for the class lay, all on one scale: at most 1 % of "
        "the heatmaps exceed its full colour.</p>\n"
        f'{controls}\n<div class="gallery" id="gallery">\n{draw_cards(run, thumbnails)}\n</div>'
    )


def _means(run) -> str:
    panels = []
    for key, sums in _by_count(run)[:MOST_CLASSES]:
        name = class_name(key, sums.label)
        canvas = draw_panel(sums.mean_evidence(), f"Mean heatmap of {name}", (160, 160))
        images = "image" if sums.count == 1 else "images"
        panels.append(
            f'<figure class="card">{canvas}<figcaption><b>{escape(name)}</b><br>'
            f"mean of {sums.count:,} {images}</figcaption></figure>"
        )
    if not panels:
        return ""
    return (
        "<p>Where the evidence for a class lies on average. A spot in the same corner of all images is often "
        "a watermark, a ruler or a frame.</p>"
        f'<div class="means">{"".join(panels)}</div>{_left_out_classes(run)}'
    )


def _trust(evaluation, manifest) -> str:
    if evaluation is None:
        return ""
    checks = evaluation["checks"]
    rows = [[_cell(check.get(name)) for name in _TRUST_COLUMNS] for check in checks]
    header = ["images" if name == "counted" else name for name in _TRUST_COLUMNS]
    meanings = {
        str(check.get("means", "")): str(check.get("check", "")).partition(":")[0] for check in checks
    }
    differing = [
        f"{name} {evaluation[name]!r} instead of {manifest.get(name)!r}"
        for name in ("method", "layer")
        if evaluation[name] != manifest.get(name)
    ]
    note = (
        f'<p class="note">This table is of another run, with {escape(", ".join(differing))}.</p>'
        if differing
        else ""
    )
    sentences = [f"{name}: {means}" for means, name in meanings.items() if means]
    entries = "".join(f"<li>{escape(sentence, 600)}</li>" for sentence in sentences)
    return f"{note}{_scrolled(table(header, rows), 'Trust table')}<ul>{entries}</ul>"


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
