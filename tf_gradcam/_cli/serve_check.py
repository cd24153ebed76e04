"""The command `serve-check`: every signature of an exported model, run on a photograph."""

import argparse
import pathlib
import time
from typing import Any, NamedTuple

from tf_gradcam._checks import printable
from tf_gradcam._cli.terminal import format_shape, import_tensorflow, print_problem, print_table


class _SignatureRun(NamedTuple):
    """The run of one signature: the names of its inputs, its answers by name, and its seconds."""

    inputs: list[str]
    answers: dict[str, Any]
    seconds: float


def run_serve_check(arguments: argparse.Namespace) -> int:
    version = _newest_version(arguments.exported)  # A wrong folder is said before TensorFlow is imported.
    import_tensorflow()
    import numpy as np
    import tensorflow as tf

    from tf_gradcam import formats, load_image
    from tf_gradcam._run import Photograph, make_viewable, read_photograph

    values = read_photograph(Photograph(arguments.photo, arguments.photo))
    picture = load_image(arguments.photo) if formats.is_scan(arguments.photo) else make_viewable(values)
    served = tf.saved_model.load(str(version))  # It must live as long as its signatures.
    model_spec = _image_spec(served.signatures.get("serving_default"))
    class_index = 0
    rows: list[tuple[str, ...]] = []
    heatmaps: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    for name, signature in served.signatures.items():
        try:
            inputs = {
                spec.name: _make_input(spec, values, arguments.photo, class_index, model_spec)
                for spec in signature.structured_input_signature[1].values()
            }
            run = _run_signature(signature, inputs)
            class_index = int(np.ravel(run.answers.get("class", class_index))[0])  # for the next signature
            heatmaps |= _titled_heatmaps(name, run.answers)
        except Exception as error:  # Whatever is wrong with one signature, the others still count.
            failed[name] = error
            continue
        shapes = ", ".join(f"{answer} {format_shape(array.shape)}" for answer, array in run.answers.items())
        rows.append((name, ", ".join(run.inputs), shapes, f"{run.seconds:.3f}"))
    print_table(("signature", "takes", "answers", "seconds"), rows)
    if heatmaps:
        _draw_heatmaps(picture, heatmaps, arguments)
    for name, reason in failed.items():
        print_problem(reason, arguments, about=name)
    return 1 if failed else 0


def _newest_version(folder) -> pathlib.Path:
    """Return the version that a server would run, or the folder itself where it is one."""
    from tf_gradcam._runtimes import needs_no_tensorflow

    folder = pathlib.Path(folder)
    if needs_no_tensorflow(folder):
        raise ValueError(
            "`DIR` must be a model's folder of versions, which TensorFlow Serving takes. Received: "
            f"{folder}, a single file. Try it with tf-gradcam explain PHOTO --model {folder}"
        )
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = [int(path.name) for path in folder.glob("*/") if path.name.isdecimal()]
    if not versions:
        raise FileNotFoundError(
            "`DIR` must be a model's folder of versions, or one of them, as `tf-gradcam export` writes it. "
            f"Received: {folder}"
        )
    return folder / str(max(versions))


def _image_spec(signature):
    """Return the spec of the first image that a signature takes, if it takes one."""
    specs = [] if signature is None else signature.structured_input_signature[1].values()
    return next((spec for spec in specs if spec.shape.rank == 4), None)


def _make_input(spec, values, path, class_index, model_spec):
    """Return the input of a signature for one spec: a photograph's bytes, pixels or values, or a class.

    A spec of uint8 gets the pixels that `load_image` returns, a floating one the `values` of the file. If the
    spec's size is open, they have the size of the model's own spec. A spec of bytes gets those of the file;
    for a scan, which no signature decodes, those of its pixels as PNG.
    """
    import tensorflow as tf

    from tf_gradcam import formats, load_image
    from tf_gradcam._run import fit_to_spec

    if spec.dtype == tf.string and formats.is_scan(path):
        return tf.io.encode_png(load_image(path))[None]
    if spec.dtype == tf.string:
        return tf.constant([pathlib.Path(path).read_bytes()])
    if spec.name == "class_index":
        return tf.constant([class_index], spec.dtype)
    has_open_size = spec.shape.rank == 4 and None in spec.shape[1:]
    sized = model_spec if has_open_size and model_spec is not None else spec
    photograph = load_image(path) if spec.dtype == tf.uint8 else values
    return tf.cast(fit_to_spec(photograph, sized), spec.dtype)


def _run_signature(signature, inputs) -> _SignatureRun:
    from tf_gradcam import serving

    signature(**inputs)  # The first call is slower, as it initializes the signature.
    start = time.perf_counter()
    answers = serving.answers(signature(**inputs))
    return _SignatureRun(list(inputs), answers, time.perf_counter() - start)


def _titled_heatmaps(name, answers) -> dict[str, Any]:
    """Return the heatmaps in the answers of a signature, each with its title."""
    import numpy as np

    from tf_gradcam import serving

    if not {"heatmap", "heatmap_png_bytes"} & answers.keys():
        return {}
    classes = answers.get("label", answers.get("class"))
    titles = [name] if classes is None else [f"{name}: {label}" for label in np.ravel(classes)]
    return {title: serving.heatmap(answers, rank=rank) for rank, title in enumerate(titles)}


def _draw_heatmaps(photograph, heatmaps, arguments) -> None:
    """Draw heatmaps over the photograph, each with its title, and say where the picture is."""
    from matplotlib import pyplot

    from tf_gradcam import show
    from tf_gradcam._run import Photograph, may_write, picture_names, write_figure

    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    photo = Photograph(arguments.photo, arguments.photo)
    (name,) = picture_names([photo], lambda name: may_write(out / f"{name}-served.png"))
    path = out / f"{name}-served.png"
    figure = show([photograph] * len(heatmaps), list(heatmaps.values()), titles=list(heatmaps))
    write_figure(figure, path)
    pyplot.close(figure)
    print(f"The heatmaps are in {printable(path)}")
