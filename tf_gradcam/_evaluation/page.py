"""Write an evaluation as JSON and as one HTML page. The command `evaluate` calls it.

The page needs no network and runs no script: its pictures are inside it, and all text is escaped.
"""

import base64
import html
import json
import pathlib
from typing import Any

from tf_gradcam._checks import printable
from tf_gradcam._evaluation.evaluation import EvaluatedPhotograph, Evaluation
from tf_gradcam._files import write_file

EVALUATION_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"
MOST_PICTURES = 200  # photographs of the page's gallery; all are in the JSON
_TITLES = {
    "trust": "How far the heatmaps can be trusted",
    "metrics": "Metrics",
    "sanity": "Sanity check: maps of the model with random weights",
}
# What each metric means, and what it can't say.
MEANINGS = {
    "deletion": "Area under the score while the first pixels of the map are replaced: low if it falls at "
    "once. It depends much on the baseline.",
    "insertion": "Area under the score while the first pixels are put back: high if few suffice. Half an "
    "image is like none in the training.",
    "insertion_minus_deletion": "Whether what comes first in the map decides the score; noise has 0.",
    "mu_fidelity": "Whether hiding a fifth of the image costs more where the map is higher; says nothing of "
    "single pixels.",
    "road": "The score without the lowest pixels, minus that without the highest, with holes that are "
    "hard to see; favours smooth maps.",
    "infidelity": "Whether the map is like the gradient; compare only explainers of one kind.",
    "max_sensitivity": "How much the map changes under small noise; a constant map is perfect.",
    "average_drop": "Share of the probability that the image times the heatmap loses; only to compare with "
    "papers, as a map of everything is perfect.",
    "increase": "Share of images whose probability rises under the heatmap; only to compare with papers.",
    "average_gain": "How much the probability rises under the heatmap; only to compare with papers.",
    "coherency": "Whether the map of the masked image is the same; not whether it is right.",
    "complexity": "Mean of the heatmap: low if it shows little; not whether it is right.",
    "adcc": "Average drop, coherency and complexity in one number; only to compare with papers.",
    "adcc_of_means": "The same from the means of all images, which papers print.",
    "arcc": "Coherency, complexity and ROAD in one number; only to compare with papers.",
    "sparseness": "How concentrated the map is; not whether it is right.",
    "entropy": "How spread out the map is; not whether it is right.",
    "energy": "Share of the heatmap inside the mask; a faithful map of a model that looks at the background "
    "fails.",
    "pointing_game": "Whether the peak is within 15 pixels of the mask; says nothing of the rest of the map.",
    "rank_accuracy": "Share of the highest pixels, as many as the mask has, that are in it.",
    "roc_auc": "Probability that a pixel of the mask is higher in the map than one outside; by chance .5.",
    "auprc": "Precision of the highest pixels, averaged over recall; by chance the share of the mask's area.",
    "iou": "Overlap of mask and heatmap above a threshold; depends on the threshold.",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: .87rem; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; }
.gallery { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fill, minmax(31rem, 1fr)); }
figure { margin: 0; border: 1px solid #ddd; border-radius: 6px; padding: .8rem; }
figure img { width: 49%; vertical-align: top; } figcaption { overflow-wrap: anywhere; }
.error { color: #a00; } dt { font-weight: 600; } dd { margin: 0 0 .4rem 0; }
@media (max-width: 35rem) { .gallery { grid-template-columns: 1fr; } }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_evaluation(evaluation: Evaluation, out: pathlib.Path) -> tuple[str, str]:
    """Write an evaluation to a folder; return the names of the JSON file and of the page.

    Each is written completely or not at all, and replaces that of an earlier evaluation.

    Raises:
        OSError: if one can't be written.
    """
    text = json.dumps(to_record(evaluation), indent=2, allow_nan=False)
    write_file(out / PAGE_FILE, make_page(evaluation).encode())
    write_file(out / EVALUATION_FILE, f"{text}\n".encode())
    return EVALUATION_FILE, PAGE_FILE


def to_record(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON can hold it.

    The values of single photographs are in the rows of `"photographs"` alone.
    """
    tables = {name: table.to_dict() for name, table in evaluation.tables.items()}
    for table in tables.values():
        for row in [*table.get("rows", ()), *table.get("checks", ())]:
            row.pop("values")
    return {
        "method": evaluation.method,
        "layer": evaluation.layer,
        "notes": evaluation.notes,
        **tables,
        "photographs": [each.row for each in evaluation.photographs],
    }


def make_page(evaluation: Evaluation) -> str:
    """Return the page: the tables with their sentences, and a gallery."""
    parts = [f"<p>Method {_text(evaluation.method)}, layer {_text(evaluation.layer)}.</p>"]
    parts += [f"<p>{_text(note)}</p>" for note in evaluation.notes]
    for name, table in evaluation.tables.items():
        parts.append(f'<h2>{_TITLES[name]}</h2><div class="wide">{table._repr_html_()}</div>')
        if name == "metrics":
            parts.append(_meanings(dict.fromkeys(row.metric for row in table)))
    shown = evaluation.photographs[:MOST_PICTURES]
    parts.append("<h2>Photographs</h2>")
    if len(shown) < len(evaluation.photographs):
        parts.append(
            f"<p>The first {len(shown)} of {len(evaluation.photographs)}; all are in {EVALUATION_FILE}.</p>"
        )
    parts.append(f'<div class="gallery">{"".join(map(_figure, shown))}</div>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of heatmaps</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>Evaluation of heatmaps</h1>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def _meanings(names) -> str:
    entries = "".join(f"<dt>{_text(name)}</dt><dd>{_text(MEANINGS[name])}</dd>" for name in names)
    return f"<dl>{entries}</dl>"


def _figure(photograph: EvaluatedPhotograph) -> str:
    """Return a photograph beside its overlay, with its class and values, or its error."""
    row = photograph.row
    if "error" in row:
        return (
            f"<figure><figcaption><b>{_text(row['file'])}</b><br>"
            f'<span class="error">{_text(row["error"])}</span></figcaption></figure>'
        )
    about = _text(row["label"])
    if row["probability"] is not None:
        about += f" {row['probability']:.1%}"
    if "warning" in row:
        about += f'<br><span class="error">{_text(row["warning"])}</span>'
    if row.get("mask", "") is None:
        about += "<br>no mask"
    cells = "".join(
        f"<tr><td>{_text(name)}</td><td>{'' if value is None else f'{value:.4g}'}</td></tr>"
        for name, value in row.get("values", {}).items()
    )
    return (
        f'<figure><img src="{_data_url(photograph.picture)}" alt="photograph"> '
        f'<img src="{_data_url(photograph.overlay)}" alt="overlay of the heatmap">'
        f"<figcaption><b>{_text(row['file'])}</b><br>{about}"
        f"<table><tbody>{cells}</tbody></table></figcaption></figure>"
    )


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _text(text: Any) -> str:
    return html.escape(printable(text))
