"""The command line: photographs in; pictures, explanations.json and a table out.

TensorFlow, OpenCV and matplotlib are imported inside the functions that need them, so that `--help` and a
mistyped command are answered at once.
"""

import argparse
import contextlib
import glob
import importlib
import importlib.util
import itertools
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tf_gradcam import __version__

_PHOTO_FILES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_LONGEST_SIDE = 512
_JSON = "explanations.json"
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


class _Answer(NamedTuple):
    """One row of `explanations.json`, and what its pictures are made of."""

    row: dict
    image: Any = None
    heatmap: Any = None


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
        description=f"Write NAME-overlay.png and NAME-heatmap.png for each photograph, and one {_JSON}.",
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
    layers = commands.add_parser(
        "layers",
        help="list the layers of a model that can be explained",
        description="List every layer that can be explained, in order of execution, with its map's shape.",
    )
    _add_model_option(layers)
    layers.set_defaults(run=_layers)
    return parser


def _add_model_option(parser) -> None:
    parser.add_argument(
        "--model",
        default="efficientnet_lite0",
        metavar="NAME|FILE",
        help="class of keras.applications such as ResNet50 (its ImageNet weights are downloaded once), or a "
        ".keras or .h5 file, which is not allowed to run code of its own (default: %(default)s, embedded)",
    )


def _add_explain_options(parser, out) -> None:
    _add_model_option(parser)
    parser.add_argument(
        "--layer",
        action="append",
        metavar="L",
        help="name or path of a layer; several times for several, fused (default: the last with a map)",
    )
    parser.add_argument(
        "--fuse", metavar="F", help="how several layers become one: mean, max or layercam (default: mean)"
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
        "--top", type=_count, default=1, metavar="K", help="explain the K best classes (default: %(default)s)"
    )
    parser.add_argument(
        "--method",
        default="gradcam",
        metavar="M",
        help="gradcam, hirescam or layercam (default: %(default)s)",
    )
    parser.add_argument("--out", default=out, metavar="DIR", help="folder to write to (default: %(default)s)")
    parser.add_argument(
        "--alpha", type=float, default=0.4, metavar="A", help="opacity of the heatmap (default: %(default)s)"
    )
    parser.add_argument("--fade", action="store_true", help="keep the photograph as it is where it's cold")
    parser.add_argument(
        "--colormap", default="jet", metavar="C", help="OpenCV's name of it (default: %(default)s)"
    )
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


def _count(text) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1. Received: {text}")
    return int(text)


# The commands


def _explain(arguments) -> int:
    # Twice the same photograph is once.
    photos = list(dict.fromkeys(photo for pattern in arguments.photos for photo in _find(pattern)))
    return _finish([answer.row for answer in _answers(photos, arguments)], arguments.out)


def _demo(arguments) -> int:
    answers = list(_answers([_demo_photo(*each) for each in _DEMO_PHOTOS], arguments))
    _draw_contact_sheet(answers, arguments)
    return _finish([answer.row for answer in answers], arguments.out)


def _layers(arguments) -> int:
    _import_tensorflow()
    from tf_gradcam import choice, layers
    from tf_gradcam.classifier import load_classifier

    model = load_classifier(arguments.model).model
    default = choice.default_layer(model).layer
    rows = []
    for each in layers.list_layers(model):
        notes = [f"runs {each.calls} times"] if each.calls > 1 else []
        notes += ["default"] if each.layer is default else []
        rows.append((each.path, type(each.layer).__name__, _shape(each.shape), ", ".join(notes)))
    _print_table(("layer", "class", "map (h x w x channels)", ""), rows)
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
    _print_table(("photo", "label", "probability", "layer", "seconds"), [_cells(row) for row in rows])
    print(f"The pictures and {_JSON} are in {_printable(out)}")
    for row in rows:
        for problem in {"warning", "error"} & set(row):
            print(f"tf-gradcam: {problem}: {_one_line(row['file'])}: {row[problem]}", file=sys.stderr)
    return 1 if any("error" in row for row in rows) else 0


def _cells(row) -> tuple[str, ...]:
    if "error" in row:
        return row["file"], "error", "", "", ""
    probability = "" if row["probability"] is None else f"{row['probability']:.1%}"
    return row["file"], row["label"], probability, row["layer"], f"{row['seconds']:.2f}"


def _print_table(columns, rows) -> None:
    from rich import box, console, table, text

    grid = table.Table(box=box.SIMPLE_HEAD)
    for name in columns:
        numeric = name in ("probability", "seconds")
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # Text, as a plain string would be read as markup: a file may be called "[red]cat.png".
        grid.add_row(*(text.Text(_printable(cell)) for cell in row))
    # Nobody has to unfold what is piped into a file.
    console.Console(width=None if sys.stdout.isatty() else 240).print(grid)


# The explanations


def _answers(photos, arguments) -> Iterator[_Answer]:
    """Explain photographs one by one and write their pictures; yield an answer per class, or an error."""
    from rich import console, progress

    terminal = console.Console(stderr=True)
    if terminal.is_terminal:
        terminal.print(f"Loading {_printable(arguments.model)} ...", markup=False, highlight=False)
    explain = _explainer(arguments)
    _rehearse(explain, arguments)
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _JSON).unlink(missing_ok=True)  # The one of an earlier run would tell of pictures that change now.
    named = list(zip(photos, _unique_names(photos), strict=True))
    track = progress.track(named, "Explaining", console=terminal, disable=not terminal.is_terminal)
    for photo, name in track:
        try:
            answers = list(explain(_load(photo)))
            for rank, answer in enumerate(answers, start=1):
                numbered = name if arguments.top == 1 else f"{name}-{rank}"
                answer.row.update(_write_pictures(answer, out, numbered, arguments))
        except Exception as error:  # Whatever is wrong with one photograph, the others still count.
            answers = [_Answer({"error": _one_line(error) or type(error).__name__})]
        yield from (answer._replace(row={"file": photo.file, **answer.row}) for answer in answers)


def _explainer(arguments) -> Callable[[Any], Iterator[_Answer]]:
    """Return the function photograph -> answers that the arguments ask for."""
    _import_tensorflow()
    from tf_gradcam import GradCAM, layers, targets
    from tf_gradcam.classifier import class_index, load_classifier

    classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
    model, asked = classifier.model, arguments.layer
    cam = GradCAM(
        model,
        asked[0] if asked and len(asked) == 1 else asked,
        call=arguments.call,
        method=arguments.method,
        fuse=arguments.fuse,
    )
    explained = cam.layer if isinstance(cam.layer, tuple) else (cam.layer,)
    path = ", ".join(layers.path_of(model, layer) for layer in explained)
    about = {"layer": path, "method": arguments.method}
    index = None if arguments.target is None else class_index(arguments.target, classifier.labels)
    output = arguments.output
    if output is not None and output.isdecimal():
        output = int(output)

    def explain(image):
        images = classifier.preprocess(_model_input(image, model))

        def explain_class(index):
            target = index if output is None else targets.Output(output, index)
            explanation, seconds = _timed(cam, images, target, size=image.shape[:2])
            return explanation._replace(outputs=_output(model, explanation.outputs, output)), seconds

        for explanation, seconds in _explain_classes(explain_class, index, arguments.top):
            row = {**_findings(explanation, classifier.labels), **about, "seconds": round(seconds, 4)}
            if not explanation.heatmap.numpy().any():
                row["warning"] = _one_line(
                    f"blank heatmap: nothing at layer {path} speaks for {row['label']}"
                )
            yield _Answer(row, image, explanation.heatmap[0].numpy())

    return explain


def _rehearse(explain, arguments) -> None:
    """Explain a picture made up: what is wrong with the arguments shows before the first photograph.

    It also compiles, which would else count as the first photograph's time.
    """
    import numpy as np

    # Not of one colour, as some preprocessing divides by the deviation.
    picture = np.arange(256 * 256 * 3).reshape(256, 256, 3).astype(np.uint8)
    for answer in itertools.islice(explain(picture), 2):  # The second shows a `--top` that is too high.
        _pictures(answer, arguments)


def _explain_classes(explain_class, index, top) -> Iterator[tuple[Any, float]]:
    """Yield the explanation, and the seconds it took, of a class or else of the `top` best ones."""
    first, seconds = explain_class(index)
    yield first, seconds
    if top == 1:
        return
    scores = _scores(first)
    if top > len(scores):
        raise ValueError(f"`--top` must be at most {len(scores)}, the number of classes. Received: {top}")
    best = int(first.target[0])
    for index in [each for each in scores.argsort()[::-1] if each != best][: top - 1]:
        yield explain_class(int(index))


def _timed(cam, *args, **kwargs):
    start = time.perf_counter()
    explanation = cam(*args, **kwargs)
    explanation.heatmap.numpy()  # On a GPU, done is when it is here.
    return explanation, time.perf_counter() - start


def _output(model, outputs, name):
    """Return the output of that name or position; of a model with one output, that."""
    from tf_gradcam import target_rows, targets

    goal = targets.Output(0 if name is None else name)
    return targets.find_output(
        target_rows.per_image(goal, 1, getattr(model, "output_names", None)).name, outputs
    )


def _scores(explanation):
    """Return what the model returned for each class; a single sigmoid unit stands for two."""
    import numpy as np

    scores = explanation.outputs[0].numpy().astype("float64")
    if scores.ndim > 1:  # a segmentation: the mean over its pixels
        scores = scores.reshape(-1, scores.shape[-1]).mean(axis=0)
    if explanation.target is not None and scores.size == 1:
        return np.array([1 - scores[0], scores[0]])
    return scores


def _findings(explanation, labels) -> dict:
    """Return the label, class, probability and score of an explanation."""
    scores, score = _scores(explanation), float(explanation.score[0])
    index = None if explanation.target is None else int(explanation.target[0])
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
    import cv2

    from tf_gradcam import inputs, layers, load_image

    spec = layers.specs_of(model)
    shape = tuple(getattr(spec, "shape", ()))
    channels_first = inputs.is_channels_first(shape)
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
    names = []
    for photo in photos:
        stem = re.sub(r"[^\w.-]+", "_", pathlib.Path(photo.file).stem)[:50].strip("._-") or "photo"
        numbered = (stem if n == 1 else f"{stem}_{n}" for n in range(1, len(photos) + 1))
        taken = {name.casefold() for name in names}  # There are file systems that can't tell Cat from cat.
        names.append(next(name for name in numbered if name.casefold() not in taken))
    return names


def _look(arguments) -> dict:
    return {"alpha": arguments.alpha, "colormap": arguments.colormap, "fade": arguments.fade}


def _pictures(answer, arguments) -> dict:
    from tf_gradcam import colorize, overlay

    return {
        "overlay": overlay(answer.image, answer.heatmap, **_look(arguments)),
        "heatmap": colorize(answer.heatmap, arguments.colormap),
    }


def _write_pictures(answer, out, name, arguments) -> dict:
    """Write both pictures of an answer, and return their file names."""
    import cv2

    files = {}
    for kind, picture in _pictures(answer, arguments).items():
        files[kind] = f"{name}-{kind}.png"
        _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        (out / files[kind]).write_bytes(png)
    return files


def _draw_contact_sheet(answers, arguments) -> None:
    from matplotlib import pyplot

    from tf_gradcam import show

    answers = [answer for answer in answers if "error" not in answer.row]
    images, heatmaps = [answer.image for answer in answers], [answer.heatmap for answer in answers]
    titles = [" ".join(_cells(answer.row)[1:3]) for answer in answers]
    figure = show(images, heatmaps, titles=titles, **_look(arguments))
    figure.savefig(pathlib.Path(arguments.out, "contact-sheet.png"))
    pyplot.close(figure)


# Text that a terminal can be trusted with


def _printable(text) -> str:
    """Return `text` with escapes for what would move the cursor or can't be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _one_line(text) -> str:
    return _printable(" ".join(str(text).split()))
