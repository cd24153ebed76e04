"""The command line: photographs in; pictures, explanations.json and a table out.

TensorFlow, OpenCV and matplotlib are imported inside the functions that need them, so that `--help` and a
mistyped command are answered at once.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import glob
import importlib.util
import itertools
import json
import math
import os
import pathlib
import re
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich import text

from tf_gradcam import __version__

_PHOTO_FILES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_LONGEST_SIDE = 512
_JSON = "explanations.json"
_FORMATS = ("tensorflow", "litert", "onnx", "openvino")  # of an export
_EVERY_CLASS = "every class"  # the label of a map that no class was chosen for
_BATCH = 16  # photographs that are read, explained or written at a time
_PIXELS = 64_000_000  # of heatmaps at a time: with more, there are fewer photographs in a batch
_PANELS, _PANEL, _GAP = 5, 2.6, 0.02  # of a comparison: how many in a row, how wide in inches, what between
_DRAWING = threading.Lock()  # matplotlib draws one figure at a time
_DEMO_PHOTOS = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/camera.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)


class _Photo(NamedTuple):
    """A photograph: the name to report it by, and what `load_image` takes; `None` where nothing is."""

    file: str
    source: Any


class _Read(NamedTuple):
    """A photograph that was read, and the name of its pictures; or why it was not."""

    photo: _Photo
    name: str
    image: Any = None
    error: Exception | None = None


class _Answer(NamedTuple):
    """One row of `explanations.json`, and what its pictures are made of."""

    row: dict
    image: Any = None
    heatmap: Any = None


class _Way(NamedTuple):
    """One of the methods asked for, with its `GradCAM`, the name of its layer, and what sets it apart."""

    method: str
    cam: Any
    layer: str
    classless: bool
    slow: bool


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments, without the program's name; by default those of the process.

    Returns:
        The exit code: 0; 1 when a photograph couldn't be explained; 2 for wrong usage; 130 when interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _complain(error, 2)


def _complain(problem, code) -> int:
    print(f"tf-gradcam: error: {_one_line(problem)}", file=sys.stderr)
    return code


# The arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tf-gradcam", description="Show where an image classifier saw the evidence for a class."
    )
    parser.add_argument("--version", action="version", version=f"tf-gradcam {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    explain = commands.add_parser(
        "explain",
        help="explain photographs",
        description=f"Write NAME-overlay.png and NAME-heatmap.png for each photograph, and one {_JSON}. With "
        "several methods these are NAME-METHOD-overlay.png and so on, and NAME-methods.png compares them.",
        epilog="Exit code: 0; 1 when a photograph couldn't be explained (the others are); 2 for wrong usage.",
    )
    explain.add_argument("photos", nargs="+", metavar="PHOTO", help="file, folder of photographs, or glob")
    _add_explain_options(explain, out="gradcam")
    explain.set_defaults(run=_explain)
    demo = commands.add_parser(
        "demo",
        help="explain the photographs that scikit-image and scikit-learn bring along",
        description="Explain real photographs from installed packages, and draw them on contact-sheet.png.",
    )
    _add_explain_options(demo, out="tf_gradcam_demo")
    demo.set_defaults(run=_demo)
    export = commands.add_parser(
        "export",
        help="save a model together with its heatmaps, for a server or a device",
        description="Write a version folder DIR/1 for TensorFlow Serving, or one file for another runtime. A "
        "named model, or one with --preprocess, then takes uint8 pixels.",
    )
    _add_export_options(export)
    export.set_defaults(run=_export)
    check = commands.add_parser(
        "serve-check",
        help="run every signature of an exported model on a photograph",
        description="Run every signature as a server would, and draw the heatmaps on NAME-served.png.",
        epilog="Exit code: 0; 1 when a signature couldn't be run; 2 for wrong usage.",
    )
    check.add_argument(
        "exported", metavar="DIR", help="a model's folder, whose newest version is run, or a version's"
    )
    check.add_argument("photo", metavar="PHOTO", help="file of a photograph")
    _add_out_option(check, "gradcam")
    check.set_defaults(run=_serve_check)
    layers = commands.add_parser(
        "layers",
        help="list the layers of a model that can be explained",
        description="List every layer that can be explained, in order of execution, with its map's shape.",
    )
    _add_model_option(layers)
    layers.set_defaults(run=_layers)
    methods = commands.add_parser(
        "methods",
        help="list the methods that explain",
        description="List every method with its cost, sign, what it looks at, and paper.",
    )
    methods.set_defaults(run=_methods)
    return parser


def _add_model_option(parser) -> None:
    parser.add_argument(
        "--model",
        default="efficientnet_lite0",
        metavar="NAME|FILE",
        help="class of keras.applications such as ResNet50 (its ImageNet weights are downloaded once), or a "
        ".keras or .h5 file, which is not allowed to run code of its own (default: %(default)s, embedded)",
    )


def _add_layer_option(parser) -> None:
    parser.add_argument(
        "--layer",
        action="append",
        metavar="L",
        help="name or path of a layer; several times for several, fused (default: the last with a map)",
    )


def _add_out_option(parser, out) -> None:
    parser.add_argument("--out", default=out, metavar="DIR", help="folder to write to (default: %(default)s)")


def _add_classifier_options(parser) -> None:
    parser.add_argument(
        "--labels", metavar="FILE", help="text file with a class per line (default: ImageNet's)"
    )
    parser.add_argument(
        "--preprocess",
        metavar="NAME|MODULE:FUNCTION",
        help="what the RGB pixels in 0..255, float32 (1, H, W, C), go through before the model: a module of "
        "keras.applications such as resnet50; unit, for [0, 1]; or a function of your own, looked up in the "
        "current folder too (default: a named model's own; for a file, nothing). The photograph is squashed "
        f"to the model's size; a model with no fixed size sees it with at most {_LONGEST_SIDE} pixels a side",
    )


def _add_export_options(parser) -> None:
    _add_model_option(parser)
    _add_layer_option(parser)
    parser.add_argument(
        "--method", default="gradcam", metavar="M", help="see `tf-gradcam methods` (default: %(default)s)"
    )
    _add_classifier_options(parser)
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR|FILE",
        help="folder of the model's versions; for other formats a file that ends in .tflite, .onnx or .xml",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default=_FORMATS[0],
        help="what to write (default: %(default)s)",
    )
    parser.add_argument(
        "--frozen", action="store_true", help="fold the weights into the graph: faster, but larger"
    )
    parser.add_argument(
        "--top-k", type=_count, metavar="K", help="also write a signature that explains the K best classes"
    )


def _add_explain_options(parser, out) -> None:
    _add_model_option(parser)
    _add_layer_option(parser)
    parser.add_argument(
        "--fuse",
        metavar="F",
        help="how several layers become one: mean, max, layercam or refinecam (default: mean)",
    )
    parser.add_argument(
        "--call", type=int, metavar="N", help="which run of a layer that runs several times, from 0"
    )
    parser.add_argument(
        "--output", metavar="NAME|N", help="which output of a model with several: its name or position"
    )
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--target", metavar="N|LABEL", help="class to explain: index or label (default: the predicted one)"
    )
    classes.add_argument(
        "--top",
        type=_count,
        default=1,
        metavar="K",
        help="explain the K best classes, by one method (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        type=_names,
        default="gradcam",
        metavar="M[,M...]",
        help="name or names, comma-separated, to compare; see `tf-gradcam methods` (default: %(default)s)",
    )
    parser.add_argument(
        "--channels",
        type=_count,
        metavar="K",
        help="only the K strongest channels of the layer, for the methods that try them one by one, such as "
        "scorecam (default: all)",
    )
    _add_out_option(parser, out)
    parser.add_argument(
        "--alpha", type=float, default=0.4, metavar="A", help="opacity of the heatmap (default: %(default)s)"
    )
    parser.add_argument("--fade", action="store_true", help="keep the photograph as it is where it's cold")
    parser.add_argument(
        "--colormap", default="jet", metavar="C", help="OpenCV's name of it (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        choices=("png", "jpg"),
        default="png",
        help="of overlays and heatmaps; jpg is smaller and written in a tenth of the time, but not exact "
        "(default: %(default)s)",
    )
    _add_classifier_options(parser)


def _count(text) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1. Received: {text}")
    return int(text)


def _names(text) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",")))


# The commands


def _explain(arguments) -> int:
    # Twice the same photograph is once.
    photos = list(dict.fromkeys(photo for pattern in arguments.photos for photo in _find(pattern)))
    return _finish([answer.row for answer in _answers(photos, arguments)], arguments.out)


def _demo(arguments) -> int:
    answers = list(_answers([_demo_photo(*each) for each in _DEMO_PHOTOS], arguments))
    explained = [answer for answer in answers if "error" not in answer.row]
    path = pathlib.Path(arguments.out, "contact-sheet.png")
    if len(arguments.method) == 1:
        _draw_contact_sheet(explained, path, arguments)
    else:
        photographs = itertools.groupby(explained, key=lambda answer: answer.row["file"])
        _draw_comparison([list(own) for _, own in photographs], path, arguments)
    return _finish([answer.row for answer in answers], arguments.out)


def _export(arguments) -> int:
    _import_tensorflow()
    from tf_gradcam import export_gradcam
    from tf_gradcam._cli.classifier import load_classifier, unchanged

    classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
    options = {"frozen": arguments.frozen, "labels": classifier.labels, "top_k": arguments.top_k}
    if arguments.format != "tensorflow":
        for name in [name for name in ("frozen", "top_k") if options[name]]:
            raise ValueError(f"`--{name.replace('_', '-')}` is for --format tensorflow alone. Leave it out.")
        options = {}
    written = export_gradcam(
        classifier.model,
        arguments.out,
        layer=_asked_layer(arguments),
        method=arguments.method,
        preprocess=None if classifier.preprocess is unchanged else classifier.preprocess,
        format=arguments.format,
        **options,
    )
    print(f"{_printable(written)} is written.")
    if arguments.format == "tensorflow":
        print(f"See what it answers: tf-gradcam serve-check {_printable(arguments.out)} PHOTO")
    return 0


def _serve_check(arguments) -> int:
    _import_tensorflow()
    import numpy as np
    import tensorflow as tf
    from matplotlib import pyplot

    from tf_gradcam import load_image, serving, show

    version = _newest(arguments.exported)
    photograph = load_image(arguments.photo)
    served = tf.saved_model.load(str(version))  # It must live as long as its signatures.
    known = _image_of(served.signatures.get("serving_default"))
    rows, heatmaps, failed, index = [], {}, {}, 0
    for name, signature in served.signatures.items():
        try:
            given = {
                each.name: _given(each, photograph, arguments.photo, index, known)
                for each in signature.structured_input_signature[1].values()
            }
            signature(**given)  # The first call loads what takes its time.
            start = time.perf_counter()
            answers = serving.answers(signature(**given))
            seconds = time.perf_counter() - start
            index = int(np.ravel(answers.get("class", index))[0])  # to ask for what was predicted
            heatmaps |= _heatmaps(name, answers)
        except Exception as error:  # Whatever is wrong with one signature, the others still count.
            failed[name] = error
            continue
        shapes = ", ".join(f"{each} {_shape(values.shape)}" for each, values in answers.items())
        rows.append((name, ", ".join(given), shapes, f"{seconds:.3f}"))
    _print_table(("signature", "takes", "answers", "seconds"), rows)
    if heatmaps:
        out = pathlib.Path(arguments.out)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{_safe_name(arguments.photo)}-served.png"
        figure = show([photograph] * len(heatmaps), list(heatmaps.values()), titles=list(heatmaps))
        figure.savefig(path)
        pyplot.close(figure)
        print(f"The heatmaps are in {_printable(path)}")
    for name, error in failed.items():
        print(f"tf-gradcam: error: {_printable(name)}: {_one_line(error)}", file=sys.stderr)
    return 1 if failed else 0


def _newest(folder) -> pathlib.Path:
    """Return the version that a server would run, or the folder itself where it is one."""
    folder = pathlib.Path(folder)
    if (folder / "saved_model.pb").is_file():
        return folder
    numbers = [int(each.name) for each in folder.glob("*/") if each.name.isdecimal()]
    if not numbers:
        raise FileNotFoundError(
            "`DIR` must be a model's folder of versions, or one of them, as `tf-gradcam export` writes it. "
            f"Received: {folder}"
        )
    return folder / str(max(numbers))


def _image_of(signature):
    """Return the spec of the first image that a signature takes, if it takes one."""
    specs = [] if signature is None else signature.structured_input_signature[1].values()
    return next((spec for spec in specs if spec.shape.rank == 4), None)


def _given(spec, photograph, path, index, known):
    """Return what a signature takes: a photograph's bytes or pixels, or the class `index`.

    Where the spec is open, the pixels have the size that the model's own spec tells, `known`.
    """
    import tensorflow as tf

    if spec.dtype == tf.string:
        return tf.constant([pathlib.Path(path).read_bytes()])
    if spec.name == "class_index":
        return tf.constant([index], spec.dtype)
    size = known if spec.shape.rank == 4 and known is not None and None in spec.shape[1:] else spec
    return tf.cast(_fitted(photograph, size), spec.dtype)


def _heatmaps(name, answers) -> dict[str, Any]:
    """Return the heatmaps in the answers of a signature, each with its title."""
    import numpy as np

    from tf_gradcam import serving

    if not {"heatmap", "heatmap_png_bytes"} & answers.keys():
        return {}
    named = answers.get("label", answers.get("class"))
    titles = [name] if named is None else [f"{name}: {each}" for each in np.ravel(named)]
    return {title: serving.heatmap(answers, rank=rank) for rank, title in enumerate(titles)}


def _layers(arguments) -> int:
    _import_tensorflow()
    from tf_gradcam._cli.classifier import load_classifier
    from tf_gradcam._model import default_layer, list_layers

    model = load_classifier(arguments.model).model
    default = default_layer(model).layer
    rows = []
    for each in list_layers(model):
        notes = [f"runs {each.calls} times"] if each.calls > 1 else []
        notes += ["default"] if each.layer is default else []
        rows.append((each.path, type(each.layer).__name__, _shape(each.shape), ", ".join(notes)))
    _print_table(("layer", "class", "map (h x w x channels)", ""), rows)
    return 0


def _methods(arguments) -> int:
    _import_tensorflow()
    from tf_gradcam import methods
    from tf_gradcam._methods import is_classless

    rows = []
    for name, about in methods.METHODS.items():
        place = "image" if _is_at_image(about.method) else "layer"
        place += f", {_EVERY_CLASS}" if is_classless(about.method) else ""
        rows.append((name, about.cost, "yes" if about.signed else "no", place, about.paper))
    _print_table(("method", "forward passes", "signed", "looks at", "paper"), rows)
    print(
        "forward passes: what it costs; K: channels of the layer, see --channels; n: samples or masks\n"
        "signed: whether it tells what speaks against the class from what doesn't matter\n"
        f"{_EVERY_CLASS}: its map is the same for all of them"
    )
    return 0


def _shape(shape) -> str:
    return " x ".join("?" if length is None else str(length) for length in shape)


def _finish(rows, out) -> int:
    """Write the JSON, which comes last so that it tells of whole work only, and print the table."""
    path = pathlib.Path(out, _JSON)
    text = json.dumps(rows, indent=2, allow_nan=False)
    unfinished = path.with_name(f".{_JSON}.unfinished")
    unfinished.write_text(f"{text}\n", encoding="utf-8")
    os.replace(unfinished, path)
    columns = ["photo", "method", "label", "probability", "layer", "seconds"]
    if len({row["method"] for row in rows if "method" in row}) < 2:
        columns.remove("method")
    _print_table(columns, [[_cells(row).get(name, "") for name in columns] for row in rows])
    print(f"The pictures and {_JSON} are in {_printable(out)}")
    for row in rows:
        about = row["file"] if "method" not in columns else f"{row['file']} {row.get('method', '')}"
        for problem in {"warning", "error"} & set(row):
            print(f"tf-gradcam: {problem}: {_one_line(about)}: {row[problem]}", file=sys.stderr)
    return 1 if any("error" in row for row in rows) else 0


def _cells(row) -> dict[str, str]:
    """Return what the table says of a row, by column."""
    if "error" in row:
        return {"photo": row["file"], "label": "error"}
    texts = {"photo": row["file"], "probability": _percent(row), "seconds": f"{row['seconds']:.2f}"}
    return {**row, **texts}


def _percent(row) -> str:
    return "" if row["probability"] is None else f"{row['probability']:.1%}"


def _print_table(columns, rows) -> None:
    from rich import box, console, table

    grid = table.Table(box=box.SIMPLE_HEAD)
    for name in columns:
        numeric = name in ("probability", "seconds")
        typed = name == "method"  # One wants to copy it.
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=typed)
    for row in rows:
        # Text, as a plain string would be read as markup: a file may be called "[red]cat.png".
        grid.add_row(*(text.Text(_printable(cell)) for cell in row))
    # Nobody has to unfold what is piped into a file.
    console.Console(width=None if sys.stdout.isatty() else 240).print(grid)


# The explanations


def _answers(photos, arguments) -> Iterator[_Answer]:
    """Explain photographs and write their pictures; yield answers, or an error, in their order."""
    from rich import console, progress

    terminal = console.Console(stderr=True)
    if terminal.is_terminal:
        terminal.print(f"Loading {_printable(arguments.model)} ...", markup=False, highlight=False)
    explain = _explainer(arguments)
    _rehearse(explain, arguments)
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _JSON).unlink(missing_ok=True)  # The one of an earlier run would tell of pictures that change now.
    write = functools.partial(_written, out=out, arguments=arguments)
    named = zip(photos, _unique_names(photos), strict=True)
    answers = arguments.top * len(arguments.method)  # for each photograph, each with a heatmap of its size
    most = 1 if any(map(_is_slow, _chosen_methods(arguments).values())) else _BATCH
    found = _pipeline(named, explain, write, most, _PIXELS // answers)
    track = progress.track(
        found, "Explaining", len(photos), console=terminal, disable=not terminal.is_terminal
    )
    for answers in track:
        yield from answers


def _pipeline(photos, explain, write, most, pixels) -> Iterator[list[_Answer]]:
    """Yield the answers to each photograph: while a batch is explained, others are read and written."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        writing = []
        for batch in _batches(photos, pool, most, pixels):
            explained = list(zip(batch, _explain_batch(batch, explain), strict=True))
            yield from (each.result() for each in writing)
            writing = [pool.submit(write, *each) for each in explained]
        yield from (each.result() for each in writing)


def _batches(photos, pool, most, pixels) -> Iterator[list[_Read]]:
    """Yield photographs that were read while the batch before was explained."""
    left = collections.deque(photos)
    reading = [pool.submit(_read, *each) for each in _take(left, most, pixels)]
    while reading:
        batch = [each.result() for each in reading]
        reading = [pool.submit(_read, *each) for each in _take(left, most, pixels)]
        yield batch


def _take(left, most, pixels) -> list:
    """Take from `left` as many photographs as have so many pixels together, one at least."""
    taken, together = [], 0
    while left and len(taken) < most:
        together += _pixels(left[0][0].source)
        if taken and together > pixels:
            break
        taken.append(left.popleft())
    return taken


def _pixels(source) -> int:
    """Return how many pixels a photograph says that it has: none, if it can't be read."""
    import PIL.Image

    if hasattr(source, "shape"):
        return source.shape[0] * source.shape[1]
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with PIL.Image.open(source) as header:
            return header.width * header.height
    return 0


def _read(photo, name) -> _Read:
    try:
        return _Read(photo, name, _load(photo))
    except Exception as error:  # Whatever is wrong with one photograph, the others still count.
        return _Read(photo, name, error=error)


def _explain_batch(batch, explain) -> list[list[_Answer]]:
    """Return the answers to each photograph of a batch: those of one size are explained together."""
    found = [None if each.error is None else [_failed(each.error)] for each in batch]
    places = [place for place, each in enumerate(batch) if each.error is None]
    for size in dict.fromkeys(batch[place].image.shape for place in places):
        alike = [place for place in places if batch[place].image.shape == size]
        together = _explain_alike([batch[place].image for place in alike], explain)
        for place, answers in zip(alike, together, strict=True):
            found[place] = answers
    return found


def _explain_alike(images, explain) -> list[list[_Answer]]:
    """Return the answers to each of several images, one by one where one of them can't be explained."""
    try:
        return explain(images)
    except Exception as error:
        if len(images) == 1:
            return [[_failed(error)]]
        return [_explain_alike([image], explain)[0] for image in images]


def _failed(error) -> _Answer:
    return _Answer({"error": _one_line(error) or type(error).__name__})


def _written(read, answers, out, arguments) -> list[_Answer]:
    """Write the pictures of a photograph; return its answers with the names of photograph and pictures."""
    if "error" not in answers[0].row:
        try:
            _write_all_pictures(answers, out, read.name, arguments)
        except Exception as error:
            answers = [_failed(error)]
    return [answer._replace(row={"file": read.photo.file, **answer.row}) for answer in answers]


def _explainer(arguments) -> Callable[..., list[list[_Answer]]]:
    """Return the function that the arguments ask for: photographs of one size -> the answers to each.

    With `rehearsing=True`, it compiles what takes seconds without running it, and answers zeros.
    """
    _import_tensorflow()
    import numpy as np

    from tf_gradcam import targets
    from tf_gradcam._cli.classifier import class_index, load_classifier

    chosen = _chosen_methods(arguments)
    classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
    model, labels, output = classifier.model, classifier.labels, arguments.output
    ways = _ways(model, chosen, arguments)
    index = None if arguments.target is None else class_index(arguments.target, labels)
    if output is not None and output.isdecimal():
        output = int(output)

    def explain_class(run, cam, inputs, size, index):
        target = index if output is None else targets.Output(output, index)
        explanation, seconds = run(cam, inputs, target, size=size)
        return _each(explanation, _output(model, explanation.outputs, output), seconds)

    def explain(images, rehearsing=False):
        # One by one, as a function of the user's may look at all that it gets.
        inputs = [classifier.preprocess(_model_input(image, model)) for image in images]
        inputs = np.concatenate([np.asarray(each) for each in inputs])
        answers = [[] for _ in images]
        for way in ways:
            run = _compiled if rehearsing and way.slow else _timed
            each = functools.partial(explain_class, run, way.cam, inputs, images[0].shape[:2])
            first = None if way.classless else index
            # Of a picture made up, the second class shows a `--top` that is too high.
            several = _explain_classes(each, first, arguments.top)
            for found in itertools.islice(several, 2 if rehearsing else None):
                for image, own, explanation in zip(images, answers, found, strict=True):
                    own.append(_Answer(_row(way, explanation, labels), image, explanation.heatmap))
        return answers

    return explain


def _chosen_methods(arguments) -> dict[str, Any]:
    """Return the methods that are asked for, by name, with the channels that they are allowed."""
    from tf_gradcam import methods
    from tf_gradcam._methods import is_classless

    chosen = {name: methods.get(name) for name in arguments.method}
    names = ", ".join(chosen)
    if arguments.top > 1 and len(chosen) > 1:
        raise ValueError(
            f"`--top` must be 1 with several methods. Received: {arguments.top} and {names}. Compare the "
            "methods class by class: --target N"
        )
    if (arguments.top > 1 or arguments.target is not None) and all(map(is_classless, chosen.values())):
        raise ValueError(
            "`--target` and `--top` need a method that explains a class. "
            f"Received: {names}, with the same map for every class. Leave them out."
        )
    if arguments.channels is None:
        return chosen
    known = [name for name, about in methods.METHODS.items() if hasattr(about.method, "channels")]
    if not chosen.keys() & known:
        raise ValueError(f"`--channels` needs one of the methods {', '.join(known)}. Received: {names}")
    few = functools.partial(dataclasses.replace, channels=arguments.channels)
    return {name: few(method) if name in known else method for name, method in chosen.items()}


def _ways(model, chosen, arguments) -> list[_Way]:
    """Return the way of each method: those at the image need no layer where others are given one."""
    from tf_gradcam import GradCAM
    from tf_gradcam._methods import is_classless
    from tf_gradcam._model import layer_path

    asked = {"layer": _asked_layer(arguments), "call": arguments.call, "fuse": arguments.fuse}
    only_at_image = all(map(_is_at_image, chosen.values()))
    ways = []
    for name, method in chosen.items():
        cam = GradCAM(model, method=method, **({} if _is_at_image(method) and not only_at_image else asked))
        explained = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
        path = "image" if cam.layer is None else ", ".join(layer_path(model, each) for each in explained)
        ways.append(_Way(name, cam, path, is_classless(method), _is_slow(method)))
    return ways


def _asked_layer(arguments):
    """Return the layer that is asked for, a list of several, or `None`."""
    asked = arguments.layer
    return asked[0] if asked and len(asked) == 1 else asked


def _is_slow(method) -> bool:
    """Whether a method takes so long that it reports its progress, unless told to take few channels."""
    return hasattr(method, "progress") and getattr(method, "channels", None) is None


def _is_at_image(method) -> bool:
    return getattr(method, "at_image", False)


def _rehearse(explain, arguments) -> None:
    """Explain a picture made up: what is wrong with the arguments shows before the first photograph.

    It also compiles, which would else count as the first photograph's time.
    """
    import numpy as np

    # Not of one colour, as some preprocessing divides by the deviation.
    picture = np.arange(256 * 256 * 3).reshape(256, 256, 3).astype(np.uint8)
    (answers,) = explain([picture], rehearsing=True)
    for answer in answers:
        _pictures(answer, arguments)


def _explain_classes(explain_class, index, top) -> Iterator[list]:
    """Yield what explains each image, for one class or else the `top` best ones of each."""
    first = explain_class(index)
    yield first
    if top == 1:
        return
    if top > len(first[0].scores):
        raise ValueError(
            f"`--top` must be at most {len(first[0].scores)}, the number of classes. Received: {top}"
        )
    others = [[int(index) for index in each.scores.argsort()[::-1] if index != each.index] for each in first]
    for rank in range(top - 1):
        yield explain_class([best[rank] for best in others])


class _Explained(NamedTuple):
    """What explains one image: its share of an `Explanation`, on the host."""

    heatmap: Any
    score: float
    index: int | None
    scores: Any
    seconds: float


def _each(explanation, outputs, seconds) -> list[_Explained]:
    """Return what explains each image of a batch, given the output that is meant and the seconds it took."""
    heatmaps, scores = explanation.heatmap.numpy(), explanation.score.numpy()
    has_class = explanation.target is not None
    indices = explanation.target.numpy() if has_class else [None] * len(heatmaps)
    return [
        _Explained(
            heatmap,
            float(score),
            int(index) if has_class else None,
            _scores(output, has_class),
            seconds / len(heatmaps),
        )
        for heatmap, score, index, output in zip(heatmaps, scores, indices, outputs.numpy(), strict=True)
    ]


def _timed(cam, *args, **kwargs):
    start = time.perf_counter()
    explanation = cam(*args, **kwargs)
    explanation.heatmap.numpy()  # On a GPU, done is when it is here.
    return explanation, time.perf_counter() - start


def _compiled(cam, *args, **kwargs):
    """Compile what `_timed` will run, and return an explanation of zeros, and no time."""
    import tensorflow as tf

    def zeros(spec):
        return None if spec is None else tf.zeros([length or 1 for length in spec.shape], spec.dtype)

    trace = tf.function(lambda: cam(*args, **kwargs), autograph=False).get_concrete_function()
    return tf.nest.map_structure(zeros, trace.structured_outputs), 0.0


def _output(model, outputs, name):
    """Return the output of that name or position; of a model with one output, that."""
    from tf_gradcam import targets
    from tf_gradcam._targets import find_output, to_rows

    goal = targets.Output(0 if name is None else name)
    return find_output(to_rows(goal, 1, getattr(model, "output_names", None)).name, outputs)


def _scores(output, has_class):
    """Return what the model returned for each class of an image; a single sigmoid unit stands for two."""
    import numpy as np

    scores = output.astype("float64")
    if scores.ndim > 1:  # a segmentation: the mean over its pixels
        scores = scores.reshape(-1, scores.shape[-1]).mean(axis=0)
    if has_class and scores.size == 1:
        return np.array([1 - scores[0], scores[0]])
    return scores


def _row(way, explained, labels) -> dict:
    row = _findings(explained, labels)
    if way.classless:
        row = {**dict.fromkeys(row), "label": _EVERY_CLASS}
    if not explained.heatmap.any():
        where = "in the image" if way.cam.layer is None else f"at layer {way.layer}"
        what = "stands out" if way.classless else f"speaks for {row['label']}"
        row["warning"] = _one_line(f"blank heatmap: nothing {where} {what}")
    return {**row, "layer": way.layer, "method": way.method, "seconds": round(explained.seconds, 4)}


def _findings(explained, labels) -> dict:
    """Return the label, class, probability and score of what was explained."""
    scores, score, index = explained.scores, explained.score, explained.index
    if labels and len(labels) != len(scores):
        raise ValueError(
            f"`--labels` must name {len(scores)} classes, one per line. Received: {len(labels)} lines"
        )
    if not abs(score) < float("inf"):
        raise ValueError(f"the model's score must be finite. Received: {score}")
    # A model that ends in no softmax or sigmoid returns the explained score itself: no probability.
    likely = scores[index or 0]
    probability = float(likely) if likely != score and 0 <= likely <= 1 else None
    label = labels[index or 0] if labels else "output" if index is None else f"class {index}"
    return {"label": label, "class": index, "probability": probability, "score": score}


def _import_tensorflow() -> None:
    """Import TensorFlow without its log, unless the user asked for one."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # What it logs while it is loaded heeds no setting, and goes past Python to the file descriptor.
    with open(os.devnull, "w") as devnull, contextlib.ExitStack() as restore:
        stderr = os.dup(2)
        restore.callback(os.close, stderr)
        restore.callback(os.dup2, stderr, 2)
        os.dup2(devnull.fileno(), 2)
        importlib.import_module("tensorflow")


# The photographs


def _find(pattern) -> list[_Photo]:
    """Return the photographs that a file, folder or glob stands for; itself, without a source, if none."""
    if os.path.isdir(pattern):
        files = (path for path in pathlib.Path(pattern).iterdir() if path.suffix.lower() in _PHOTO_FILES)
        paths = sorted(map(str, files))
    elif os.path.exists(pattern):  # A file may well be called "cat[1].jpg".
        paths = [pattern]
    else:
        paths = sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    return [_Photo(path, path) for path in paths] or [_Photo(pattern, None)]


def _load(photo):
    from tf_gradcam import load_image

    if photo.source is None:
        raise FileNotFoundError("no photograph is there, and none matches")
    return load_image(photo.source)


def _model_input(image, model):
    """Return a photograph as `model` takes it, but for preprocessing: float32 `(1, h, w, C)` in 0..255."""
    from tf_gradcam._model import require_specs

    return _fitted(image, require_specs(model))


def _fitted(image, spec):
    """Return a photograph of the shape that a spec tells: float32 `(1, h, w, C)` in 0..255."""
    import cv2

    from tf_gradcam import load_image
    from tf_gradcam._model import is_channels_first

    shape = tuple(getattr(spec, "shape", ()))
    channels_first = is_channels_first(shape)
    if channels_first:
        shape = (shape[0], *shape[2:], shape[1])
    if len(shape) != 4 or shape[-1] not in (None, 1, 3):
        raise ValueError(
            "`--model` must take one photograph (N, H, W, 3) or (N, H, W, 1). Received: a model that takes "
            f"{spec}. Explain it in Python, with tf_gradcam.GradCAM."
        )
    _, *size, channels = shape
    shrink = min(1, _LONGEST_SIDE / max(image.shape[:2]))
    size = [given or max(1, round(own * shrink)) for given, own in zip(size, image.shape[:2], strict=True)]
    pixels = load_image(image, size=tuple(size))
    if channels == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    if channels_first:
        pixels = pixels.transpose(2, 0, 1)
    return pixels[None].astype("float32")


def _demo_photo(package, file) -> _Photo:
    # find_spec looks the package up without running any of its code.
    spec = importlib.util.find_spec(package)
    paths = [pathlib.Path(root, file) for root in (spec and spec.submodule_search_locations) or ()]
    path = next(filter(pathlib.Path.is_file, paths), None)
    if path is None:
        raise ImportError(f'The demo needs {package}\'s {file}. Install it: pip install "tf_gradcam[demo]"')
    if path.stem != "rocket":
        return _Photo(path.name, str(path))
    # Squashed to a square, the rocket is short and wide: the model takes its tower for an oil rig.
    return _Photo(path.name, _load(_Photo(path.name, str(path)))[:, 100:527])


# The pictures


def _unique_names(photos) -> list[str]:
    """Return a name for the pictures of each photograph: its file's, made safe, and numbered where taken."""
    names, taken, numbers = [], set(), collections.Counter()
    for photo in photos:
        stem = name = _safe_name(photo.file)
        while name.casefold() in taken:  # There are file systems that can't tell Cat from cat.
            numbers[stem.casefold()] += 1
            name = f"{stem}_{numbers[stem.casefold()] + 1}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _safe_name(file) -> str:
    return re.sub(r"[^\w.-]+", "_", pathlib.Path(file).stem)[:50].strip("._-") or "photo"


def _look(arguments) -> dict:
    return {"alpha": arguments.alpha, "colormap": arguments.colormap, "fade": arguments.fade}


def _pictures(answer, arguments) -> dict:
    from tf_gradcam import colorize, overlay

    return {
        "overlay": overlay(answer.image, answer.heatmap, **_look(arguments)),
        "heatmap": colorize(answer.heatmap, arguments.colormap),
    }


def _write_all_pictures(answers, out, name, arguments) -> None:
    """Write the pictures of a photograph, and their file names into the rows of its answers."""
    several = len(arguments.method) > 1
    for rank, answer in enumerate(answers, start=1):
        suffix = f"-{answer.row['method']}" if several else f"-{rank}" if arguments.top > 1 else ""
        answer.row.update(_write_pictures(answer, out, name + suffix, arguments))
    if several:
        comparison = f"{name}-methods.png"
        _draw_comparison([answers], out / comparison, arguments)
        for answer in answers:
            answer.row["comparison"] = comparison


def _write_pictures(answer, out, name, arguments) -> dict:
    """Write both pictures of an answer, and return their file names."""
    import cv2

    files = {}
    for kind, picture in _pictures(answer, arguments).items():
        files[kind] = f"{name}-{kind}.{arguments.format}"
        _, encoded = cv2.imencode(f".{arguments.format}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        (out / files[kind]).write_bytes(encoded)
    return files


def _draw_contact_sheet(answers, path, arguments) -> None:
    from matplotlib import pyplot

    from tf_gradcam import show

    images, heatmaps = [answer.image for answer in answers], [answer.heatmap for answer in answers]
    figure = show(images, heatmaps, titles=[_found(answer.row) for answer in answers], **_look(arguments))
    figure.savefig(path)
    pyplot.close(figure)


def _draw_comparison(photographs, path, arguments) -> None:
    """Draw photographs, each with the overlays of its answers after it, in as many rows as that takes."""
    with _DRAWING:
        _draw_rows(photographs, path, arguments)


def _draw_rows(photographs, path, arguments) -> None:
    from matplotlib.figure import Figure

    number = 1 + len(arguments.method)
    columns = math.ceil(number / math.ceil(number / _PANELS))
    panels = [_panels(answers, arguments) for answers in photographs]
    rows = [own[start : start + columns] for own in panels for start in range(0, number, columns)]
    heights = [min(1.2, len(row[0][0]) / row[0][0].shape[1]) for row in rows]
    lines = [max(title.count("\n") + 1 for _, title in row) for row in rows]
    # In units of a panel's width. Placed by hand, as a layout engine cuts titles of two lines off.
    above = [0.06 + 0.07 * count for count in lines]
    width, height = columns + _GAP * (columns + 1), sum(heights) + sum(above) + _GAP
    figure = Figure(figsize=(_PANEL * width, _PANEL * height), dpi=150)
    bottom = height
    for row, own, title_height in zip(rows, heights, above, strict=True):
        bottom -= title_height + own
        for column, (picture, title) in enumerate(row):
            left = _GAP + (1 + _GAP) * column
            axis = figure.add_axes((left / width, bottom / height, 1 / width, own / height))
            axis.set_axis_off()
            axis.imshow(picture)
            axis.set_title(title.replace("$", r"\$"), fontsize=10)
    figure.savefig(path)


def _panels(answers, arguments) -> list[tuple[Any, str]]:
    """Return pictures, small, and their titles: the photograph and the overlay of each answer."""
    from tf_gradcam import load_image

    image = answers[0].image
    shrink = min(1, _LONGEST_SIDE / max(image.shape[:2]))
    image = load_image(image, size=tuple(max(1, round(side * shrink)) for side in image.shape[:2]))
    found = [_found(answer.row) for answer in answers if answer.row["score"] is not None]
    panels = [(image, "\n".join(textwrap.wrap(found[0] if found else _EVERY_CLASS, 32, max_lines=2)))]
    for answer in answers:
        picture = _pictures(answer._replace(image=image), arguments)["overlay"]
        about = "" if not found or answer.row["score"] is not None else f", {_EVERY_CLASS}"
        panels.append((picture, answer.row["method"] + about))
    return panels


def _found(row) -> str:
    """Return the class that a row is about, and its probability if there is one."""
    return _printable(f"{row['label']} {_percent(row)}".strip())


# Text that a terminal can be trusted with


def _printable(text) -> str:
    """Return `text` with escapes for what would move the cursor or can't be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _one_line(text) -> str:
    return _printable(" ".join(str(text).split()))
