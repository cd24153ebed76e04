"""The options of every command, and the function that runs it; `main` calls `make_parser`.

Only the standard library is imported, so that `--help` and a mistyped command are answered at once.
"""

import argparse
import textwrap

from tf_gradcam import __version__
from tf_gradcam._cli.evaluate import run_evaluate
from tf_gradcam._cli.explain import run_demo, run_explain
from tf_gradcam._cli.export import run_export
from tf_gradcam._cli.listing import run_layers, run_methods
from tf_gradcam._cli.option_types import band_numbers, count, fraction, fraction_or_otsu, names, pair
from tf_gradcam._cli.serve_check import run_serve_check

_EXIT_CODES = (
    "Exit code: 0; 1 when a photograph couldn't be explained (the others are); 2 for wrong usage; 3 when a "
    "result couldn't be written, as on a full disk; 130 when interrupted (Ctrl-C), 143 when terminated "
    "(SIGTERM), 129 when the terminal is closed. A run that ends early (3 or more) writes the rows of the "
    "photographs explained until then to explanations-unfinished.json, and leaves an earlier run's "
    "explanations.json unchanged. A run in progress saves its rows to explanations-unfinished.json twice a "
    "minute."
)
_EVALUATE_DESCRIPTION = (
    "Measure how far heatmaps can be trusted: whether the score depends on what they show, and whether they "
    "change with the weights and with the class; with masks, also whether they show the object. Print the "
    "tables, and write evaluation.json and evaluation.html, a page with every photograph, its overlay and "
    "its values. What each number means, and what it can't say, is in docs/trust.md."
)
_EVALUATE_EXIT_CODES = (
    "Exit code: 0; 1 when a photograph or its mask couldn't be read (the others are measured); else as "
    "`tf-gradcam explain --help` says. A run that ends early writes nothing, and leaves the files of an "
    "earlier one unchanged. Photographs are held in memory as the model takes them: 0.6 MB for 224 x 224 "
    "pixels."
)
_EVALUATE_EXAMPLES = """examples:
  tf-gradcam evaluate photos/                      # the short trust table of the embedded model
  tf-gradcam evaluate photos/ --model defects.keras --preprocess unit --masks masks/ --sanity
  tf-gradcam evaluate photos/ --method layercam --metrics insertion,mu_fidelity --baselines blur,mean"""
_EXPORT_FORMATS = ("tensorflow", "litert", "onnx", "openvino")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Besides the options, the parsed arguments have `run`, the command's function, and `command`, its parser.
    """
    parser = argparse.ArgumentParser(
        prog="tf-gradcam", description="Show where an image classifier saw the evidence for a class."
    )
    parser.add_argument("--version", action="version", version=f"tf-gradcam {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_explain(commands)
    _add_demo(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_serve_check(commands)
    _add_layers(commands)
    _add_methods(commands)
    return parser


def _add_explain(commands) -> None:
    command = commands.add_parser(
        "explain",
        help="explain photographs",
        description="Write NAME-overlay.png and NAME-heatmap.png for each photograph, and one "
        "explanations.json. With several methods these are NAME-METHOD-overlay.png and so on, and "
        "NAME-methods.png compares them. Pictures of an earlier run are replaced. Other files are never "
        "replaced: the picture gets a number, as in NAME_2-overlay.png. Scans are files of DICOM, NIfTI, "
        "GeoTIFF, video, slides and arrays: their heatmaps are written in their own formats, too, at the "
        "same place in the patient, on the map or in the clip.",
        epilog=_EXIT_CODES,
    )
    _add_photos_argument(command)
    _add_explain_options(command, out="gradcam")
    _add_scan_options(command)
    command.set_defaults(run=run_explain, command=command)


def _add_demo(commands) -> None:
    command = commands.add_parser(
        "demo",
        help="explain the photographs that scikit-image and scikit-learn install",
        description="Explain real photographs from installed packages, and draw them on contact-sheet.png.",
    )
    _add_explain_options(command, out="tf_gradcam_demo")
    command.set_defaults(run=run_demo, command=command)


def _add_evaluate(commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure how far the heatmaps of photographs can be trusted",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # The examples keep their lines.
        description=textwrap.fill(_EVALUATE_DESCRIPTION, 100),
        epilog=f"{textwrap.fill(_EVALUATE_EXIT_CODES, 100)}\n\n{_EVALUATE_EXAMPLES}",
    )
    _add_photos_argument(command)
    _add_measure_options(command)
    _add_model_option(command)
    _add_layer_options(command)
    _add_target_option(command)
    command.add_argument(
        "--method", default="gradcam", metavar="M", help="see `tf-gradcam methods` (default: %(default)s)"
    )
    _add_channels_option(command)
    _add_classifier_options(command, "to 224 x 224 pixels")
    _add_out_option(command, "evaluation")
    command.set_defaults(run=run_evaluate, command=command)


def _add_measure_options(parser) -> None:
    parser.add_argument(
        "--metrics",
        type=names,
        metavar="M[,M...]",
        help="metrics such as insertion, deletion, mu_fidelity and road, comma-separated, instead of the "
        "short trust table; docs/trust.md lists them. Each is measured for a map of noise, and for one "
        "of the centre, too",
    )
    parser.add_argument(
        "--baselines",
        type=names,
        metavar="B[,B...]",
        help="what replaces pixels, after the preprocessing: zero, mean, blur, noise or road (default: zero "
        "and blur)",
    )
    parser.add_argument(
        "--masks",
        metavar="DIR",
        help="folder of masks, named like the photographs: cat.png for cat.jpg. PNGs of 8 bits, in which "
        "every pixel of the object is above 0. For energy, pointing_game, rank_accuracy, roc_auc, auprc and "
        "iou; without one of these, the first two are added. Photographs without a mask count as missing",
    )
    parser.add_argument(
        "--sanity",
        action="store_true",
        help="compare maps with those of the model with random weights, in up to 8 stages",
    )


def _add_export(commands) -> None:
    command = commands.add_parser(
        "export",
        help="save a model together with its heatmaps, for a server or a device",
        description="Write a version folder DIR/1 for TensorFlow Serving, or one file for another runtime. A "
        "named model, or one with --preprocess, then takes uint8 pixels.",
    )
    _add_export_options(command)
    command.set_defaults(run=run_export, command=command)


def _add_serve_check(commands) -> None:
    command = commands.add_parser(
        "serve-check",
        help="run every signature of an exported model on a photograph",
        description="Run every signature as a server would, and draw the heatmaps on NAME-served.png.",
        epilog="Exit code: 0; 1 when a signature couldn't be run; else as `tf-gradcam explain --help` says.",
    )
    command.add_argument(
        "exported", metavar="DIR", help="folder of a model, whose newest version is run, or of one version"
    )
    command.add_argument("photo", metavar="PHOTO", help="file of a photograph or scan")
    _add_out_option(command, "gradcam")
    command.set_defaults(run=run_serve_check, command=command)


def _add_layers(commands) -> None:
    command = commands.add_parser(
        "layers",
        help="list the layers of a model that can be explained",
        description="List every layer that can be explained, in order of execution, with its map's shape.",
    )
    _add_model_option(command)
    command.set_defaults(run=run_layers, command=command)


def _add_methods(commands) -> None:
    command = commands.add_parser(
        "methods",
        help="list the methods that explain",
        description="List every method with its cost, sign, what it looks at, and paper.",
    )
    command.set_defaults(run=run_methods, command=command)


def _add_scan_options(parser) -> None:
    group = parser.add_argument_group("scans")
    shown = group.add_mutually_exclusive_group()
    shown.add_argument(
        "--window",
        type=pair,
        metavar="CENTER,WIDTH",
        help="what pictures of DICOM and NIfTI files show, as radiologists say it: 40,400 for soft "
        "tissue of a CT (default: the file's own window)",
    )
    shown.add_argument(
        "--limits",
        type=pair,
        metavar="LOW,HIGH",
        help="the values that are black and white in pictures, for files of more than 8 bits",
    )
    shown.add_argument(
        "--percentiles", type=pair, metavar="LOW,HIGH", help="likewise, as percentiles of the valid values"
    )
    group.add_argument(
        "--bands",
        type=band_numbers,
        metavar="R,G,B",
        help="for files of more than three bands: those that pictures show, from 1, such as 4,3,2; a model "
        "of as many channels gets them, too (default: 1,2,3)",
    )
    group.add_argument(
        "--sliding",
        type=fraction,
        nargs="?",
        const=0.5,
        metavar="OVERLAP",
        help="explain each scan by windows of the model's size that overlap by this share (default: 0.5), "
        "not as one image of that size; needs --target",
    )
    group.add_argument(
        "--series", action="store_true", help="a folder is one series of DICOM files, explained as a volume"
    )


def _add_photos_argument(parser) -> None:
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="file of a photograph or scan, folder, or glob. A folder is searched with its subfolders; "
        "hidden files, files that are no photographs, and pictures that tf-gradcam wrote are skipped",
    )


def _add_model_option(parser) -> None:
    parser.add_argument(
        "--model",
        default="efficientnet_lite0",
        metavar="NAME|FILE",
        help="class of keras.applications such as ResNet50 (its ImageNet weights are downloaded once), or a "
        ".keras or .h5 file, which may not run code of its own (default: %(default)s, embedded)",
    )


def _add_layer_option(parser) -> None:
    parser.add_argument(
        "--layer",
        action="append",
        metavar="L",
        help="name or path of a layer; several times for several, fused (default: the last layer that has a "
        "feature map)",
    )


def _add_layer_options(parser) -> None:
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


def _add_channels_option(parser) -> None:
    parser.add_argument(
        "--channels",
        type=count,
        metavar="K",
        help="only the K strongest channels of the layer, for the methods that try them one by one, such as "
        "scorecam (default: all)",
    )


def _add_target_option(parser) -> None:
    parser.add_argument(
        "--target", metavar="N|LABEL", help="class to explain: index or label (default: the predicted one)"
    )


def _add_out_option(parser, out) -> None:
    parser.add_argument("--out", default=out, metavar="DIR", help="folder to write to (default: %(default)s)")


def _add_classifier_options(parser, open_size="it has at most 512 pixels a side") -> None:
    parser.add_argument(
        "--labels", metavar="FILE", help="text file with a class per line (default: ImageNet's)"
    )
    parser.add_argument(
        "--preprocess",
        metavar="NAME|MODULE:FUNCTION",
        help="preprocessing of the RGB pixels, float32 (1, H, W, C), in 0..255 for 8-bit files: a module of "
        "keras.applications such as resnet50; unit, for [0, 1]; or a function of your own, which is also "
        "looked up in the current folder (default: a named model's own; for a file, none). The photograph is "
        "resized to the model's input size without regard to its proportions; for a model with no fixed size "
        f"{open_size}",
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
        choices=_EXPORT_FORMATS,
        default=_EXPORT_FORMATS[0],
        help="what to write (default: %(default)s)",
    )
    parser.add_argument(
        "--frozen", action="store_true", help="fold the weights into the graph: faster, but larger"
    )
    parser.add_argument(
        "--top-k", type=count, metavar="K", help="also write a signature that explains the K best classes"
    )
    parser.add_argument(
        "--boxes",
        type=fraction,
        metavar="T",
        help="also return the box around the strongest part of each heatmap above this fraction of its "
        "maximum, such as 0.15",
    )


def _add_explain_options(parser, out) -> None:
    _add_model_option(parser)
    _add_layer_options(parser)
    _add_class_options(parser)
    parser.add_argument(
        "--method",
        type=names,
        default="gradcam",
        metavar="M[,M...]",
        help="name or names, comma-separated, to compare; see `tf-gradcam methods` (default: %(default)s)",
    )
    _add_channels_option(parser)
    _add_out_option(parser, out)
    _add_picture_options(parser)
    _add_classifier_options(parser)


def _add_class_options(parser) -> None:
    classes = parser.add_mutually_exclusive_group()
    _add_target_option(classes)
    classes.add_argument(
        "--top",
        type=count,
        default=1,
        metavar="K",
        help="explain the K best classes, by one method (default: %(default)s)",
    )


def _add_picture_options(parser) -> None:
    parser.add_argument(
        "--alpha", type=float, default=0.4, metavar="A", help="opacity of the heatmap (default: %(default)s)"
    )
    parser.add_argument("--fade", action="store_true", help="fade the colours out where the heatmap is low")
    parser.add_argument(
        "--colormap", default="jet", metavar="C", help="OpenCV's name of it (default: %(default)s)"
    )
    parser.add_argument(
        "--boxes",
        type=fraction_or_otsu,
        metavar="T|otsu",
        help="find the boxes around what is above this fraction of the heatmap's maximum, such as 0.15, or "
        'above Otsu\'s threshold: each row of the JSON gets "boxes", a list of {"bbox": [x, y, width, '
        'height], "area", "score"} in pixels of the upright photograph, at most 100, those with most of '
        "the heatmap first; score is the mean of the heatmap there. They are drawn on the overlays (default: "
        "none)",
    )
    parser.add_argument(
        "--format",
        choices=("png", "jpg"),
        default="png",
        help="of overlays and heatmaps; jpg is smaller and written in a tenth of the time, but not exact "
        "(default: %(default)s)",
    )
