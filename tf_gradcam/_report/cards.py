"""The cards of a page: photographs beside their heatmaps, and one image for two classes. `page` calls it.

A heatmap is embedded as the numbers of its grid, a byte a cell; the page's script draws it.
"""

import base64
from collections.abc import Sequence

import numpy as np

from tf_gradcam._report.rows import Row, Run
from tf_gradcam._report.text import class_name, escape, format_number, format_share
from tf_gradcam._report.thumbnails import Thumbnail

MOST_PAIRS = 50  # images that are shown for two classes


def draw_cards(run: Run, thumbnails: Sequence[Thumbnail]) -> str:
    """Return a card for each row that is shown, those with an error at the end."""
    full = run.full_color()
    rows = [*run.shown, *run.errors]
    return "\n".join(
        _card(place, *each, full) for place, each in enumerate(zip(rows, thumbnails, strict=True))
    )


def draw_panel(
    evidence: np.ndarray, about: str, size: tuple[int, int], photo: str = "", minus: np.ndarray | None = None
) -> str:
    """Return a frame in which the script draws a heatmap.

    Args:
        evidence: the positive map, `(h, w)`.
        about: what it shows, for those who can't see it.
        size: height and width in pixels.
        photo: the card with the photograph below the heatmap, or `""` for none.
        minus: a second map; the difference of both is drawn.
    """
    height, width = size
    below = f'map" data-photo="{photo}' if photo else "map empty"
    second = "" if minus is None else f" {_map_data(minus, '-minus')}"
    rows, columns = evidence.shape
    return (
        f'<div class="frame {below}"><canvas role="img" aria-label="{escape(about, 300)}" width="{width}" '
        f'height="{height}" data-grid="{rows},{columns}" {_map_data(evidence)}{second}>'
        "</canvas></div>"
    )


def _map_data(evidence, suffix="") -> str:
    """Return the attributes of a map: the bytes of its cells, and the value of 255."""
    peak = float(evidence.max())
    cells = np.rint(evidence / peak * 255) if peak > 0 else np.zeros(evidence.shape)
    encoded = base64.b64encode(cells.astype(np.uint8).tobytes()).decode()
    return f'data-map{suffix}="{encoded}" data-peak{suffix}="{peak:.6g}"'


def _card(place, row, thumbnail, full) -> str:
    values = row.values
    state = "error" if row.evidence is None else "first" if row.is_first else "other"
    data = {
        "class": "" if values["target"] is None or state == "error" else values["target"],
        "state": state,
        "score": _json_number(values["score"]),
        "probability": _json_number(values["probability"]),
    }
    attributes = " ".join(f'data-{name}="{value}"' for name, value in data.items())
    name = escape(values["id"])
    evidence = "" if row.evidence is None else _evidence(place, row, thumbnail)
    facts = _error(values) if row.evidence is None else _facts(row, full)
    problem = (
        f'<p class="note">{escape(thumbnail.problem)}.</p>' if thumbnail.problem and thumbnail.jpeg else ""
    )
    photograph = "" if row.evidence is None and not thumbnail.jpeg else _photograph(thumbnail, name)
    pictures = f'<div class="pair">{photograph}{evidence}</div>' if photograph else ""
    return (
        f'<article class="card {state}" id="r{place}" {attributes}><h3 title="{name}">{name}</h3>'
        f"{pictures}{facts}{problem}</article>"
    )


def _json_number(value) -> str:
    return "" if value is None else f"{value:.6g}"


def _photograph(thumbnail, name) -> str:
    if not thumbnail.jpeg:
        missing = f'<p class="frame missing">No photograph. {escape(thumbnail.problem)}.</p>'
        return f"<figure>{missing}<figcaption>photograph</figcaption></figure>"
    height, width = thumbnail.size
    encoded = base64.b64encode(thumbnail.jpeg).decode()
    return (
        f'<figure><div class="frame"><img src="data:image/jpeg;base64,{encoded}" width="{width}" '
        f'height="{height}" alt="photograph {name}" decoding="async"></div>'
        "<figcaption>photograph</figcaption></figure>"
    )


def _evidence(place, row, thumbnail) -> str:
    about = f"heatmap for {class_name(row.values['target'], row.values['label'])}, {row.values['id']}"
    photo = f"r{place}" if thumbnail.jpeg else ""
    panel = draw_panel(row.evidence, about, thumbnail.size, photo)
    return f"<figure>{panel}<figcaption>heatmap</figcaption></figure>"


def _facts(row, full) -> str:
    """Return class, probability, score and maximum of a row, and the best classes."""
    values = row.values
    label = escape(class_name(values["target"], values["label"]))
    share = values["probability"]
    bar = (
        ""
        if share is None
        else (
            '<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="all" width="100" height="4"/><rect width="{100 * share:.1f}" height="4"/></svg>'
        )
    )
    maximum = f"{100 * row.peak / full:.0f} % of full colour" if full > 0 else "blank"
    probability = "" if share is None else f"<span>{format_share(share)}</span>"
    text = (
        f'<p class="class"><b>{label}</b>{probability}</p>{bar}'
        f'<p class="facts">score {format_number(values["score"])}, maximum {maximum}</p>'
    )
    if not row.is_first:
        best = values["top"][0]
        first = escape(class_name(best["class"], best["label"]))
        text += f'<p class="warning">The model\'s first class is {first}.</p>'
    return text + _best(values["top"])


def _best(top) -> str:
    if not top:
        return ""
    entries = "".join(
        f"<li>{escape(class_name(each['class'], each['label']), 80)} "
        f"<span>{format_number(each['score'])}</span></li>"
        for each in top
    )
    return f"<details><summary>{len(top)} best classes</summary><ol>{entries}</ol></details>"


def _error(values) -> str:
    return f'<p class="warning">Not explained: {escape(values["error"], 300)}</p>'


# One image for two classes


def shown_pairs(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Return the places of rows of one photograph with two classes, the higher score first."""
    by_path: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row.values["path"] and row.values["target"] is not None:
            by_path.setdefault(row.values["path"], []).append(place)
    pairs = []
    for places in by_path.values():
        places = sorted(places, key=lambda place: -(rows[place].values["score"] or 0))
        others = [each for each in places if rows[each].values["target"] != rows[places[0]].values["target"]]
        if others:
            pairs.append((places[0], others[0]))
    return pairs[:MOST_PAIRS]


def draw_pairs(rows: Sequence[Row], pairs: Sequence[tuple[int, int]], thumbnails: Sequence[Thumbnail]) -> str:
    """Return a card for each image with two classes: both heatmaps, and their difference."""
    if not pairs:
        return ""
    cards = []
    for first, second in pairs:
        names = [
            class_name(rows[each].values["target"], rows[each].values["label"]) for each in (first, second)
        ]
        photo = f"r{first}" if thumbnails[first].jpeg else ""
        size = thumbnails[first].size
        panels = [
            (rows[first].evidence, names[0], None),
            (rows[second].evidence, names[1], None),
            (rows[first].evidence, f"{names[0]} (orange) against {names[1]} (blue)", rows[second].evidence),
        ]
        figures = "".join(
            f"<figure>{draw_panel(evidence, f'heatmap for {about}', size, photo, minus)}"
            f"<figcaption>{escape(about)}</figcaption></figure>"
            for evidence, about, minus in panels
        )
        path = escape(rows[first].values["path"])
        cards.append(
            f'<article class="card"><h3 title="{path}">{path}</h3>'
            f'<div class="three">{figures}</div></article>'
        )
    return (
        "<p>Images that were explained for two classes. The third picture shows where one class has more "
        f'evidence than the other.</p><div class="pairs">{"".join(cards)}</div>'
    )
