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
from tf_gradcam._cli.option_types import count
from tf_gradcam._cli.options import (
    add_channels_option,
    add_classifier_options,
    add_engine_options,
    add_explain_options,
    add_export_options,
    add_layer_options,
    add_measure_options,
    add_model_option,
    add_out_option,
    add_photos_argument,
    add_row_options,
    add_scale_options,
    add_scan_options,
    add_target_option,
    add_threads_option,
)
from tf_gradcam._cli.report import run_report
from tf_gradcam._cli.run import run_dataset_command
from tf_gradcam._cli.serve_check import run_serve_check

_EXIT_CODES = (
    "Exit code: 0; 1 when a photograph couldn't be explained (the others are); 2 for wrong usage; 3 when a "
    "result couldn't be written, as on a full disk; 130 when interrupted (Ctrl-C), 143 when terminated "
    "(SIGTERM), 129 when the terminal is closed. A run that ends early (3 or more) writes the rows of the "
    "photographs explained until then to explanations-unfinished.json, and leaves an earlier run's "
    "explanations.json unchanged. The same command goes on where it ended, also where it was killed."
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
_RUN_DESCRIPTION = (
    "Explain every image of a data set, and write a row for each to Parquet files of 10,000 rows: id, "
    "path, SHA-256, class, score, probability, the five best classes, the signed map on the layer's own "
    "grid, peak, box, error. The run may be ended at any moment; the same command goes on where it ended, "
    "row by row."
)
_RUN_EXIT_CODES = (
    "Exit code: 0; 1 when an image couldn't be explained (its row has the error); 2 for wrong usage; 3 when "
    "a row couldn't be written, as on a full disk; 130 when interrupted (Ctrl-C), 143 when terminated "
    "(SIGTERM), 129 when the terminal is closed. Whatever ends a run, all rows until then are kept."
)
_RUN_EXAMPLES = """examples:
  tf-gradcam run photos/ --out rows                # the embedded model, each image's own class
  tf-gradcam run images.csv --model defects.keras --preprocess unit --labels labels.txt --out rows
  tf-gradcam run '/data/**/*.jpg' --model ResNet50 --method layercam --layer conv4_block6_out --out rows
  tf-gradcam run photos/ --engine ray --address auto --workers 8 --gpus 1 --out rows"""

_REPORT_DESCRIPTION = (
    "Write one HTML file of what `tf-gradcam run` wrote: a summary, the photographs beside their heatmaps on "
    "one scale, with filters and sliders, the mean heatmap of each class, and the trust table if "
    "evaluation.json of `tf-gradcam evaluate` lies in the folder. The file needs no network, and prints to "
    "PDF. First come images whose explained class is not the model's first, then the least certain."
)
_REPORT_EXIT_CODES = (
    "Exit code: 0; 2 for wrong usage, or a folder without a run; else as `tf-gradcam explain --help` says."
)
_REPORT_EXAMPLES = """examples:
  tf-gradcam report rows                           # rows-report.html
  tf-gradcam report rows --out report.html --title 'Defects, line 3'
  tf-gradcam report rows --photos /data --most 300 # relative paths start from /data"""


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
    _add_run(commands)
    _add_report(commands)
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
        "NAME-methods.png compares them. A photograph that the folder holds the pictures of is not explained "
        "again, unless its file has changed or it had an error. Another model or other options are refused: "
        "give another folder, or --restart. Files of others are never "
        "replaced: the picture gets a number, as in NAME_2-overlay.png. Scans are files of DICOM, NIfTI, "
        "GeoTIFF, video, slides and arrays: their heatmaps are written in their own formats, too, at the "
        "same place in the patient, on the map or in the clip.",
        epilog=_EXIT_CODES,
    )
    add_photos_argument(command)
    add_explain_options(command, out="gradcam")
    command.add_argument(
        "--restart", action="store_true", help="explain all photographs anew, and replace earlier pictures"
    )
    add_scale_options(command)
    add_scan_options(command)
    command.set_defaults(run=run_explain, command=command)


def _add_demo(commands) -> None:
    command = commands.add_parser(
        "demo",
        help="explain the photographs that scikit-image and scikit-learn install",
        description="Explain real photographs from installed packages, and draw them on contact-sheet.png.",
    )
    add_explain_options(command, out="tf_gradcam_demo")
    command.set_defaults(run=run_demo, command=command)


def _add_run(commands) -> None:
    command = commands.add_parser(
        "run",
        help="explain a data set of any size into Parquet files",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.fill(_RUN_DESCRIPTION, 100),
        epilog=f"{textwrap.fill(_RUN_EXIT_CODES, 100)}\n\n{_RUN_EXAMPLES}",
    )
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="file of a photograph, folder, glob, text file with a path per line, or a CSV or Parquet table "
        "with a column path, and target and id if they are known",
    )
    add_model_option(command)
    add_threads_option(command, "every core; one for .tflite, and on Ray")
    add_layer_options(command)
    add_target_option(command)
    command.add_argument(
        "--method",
        metavar="M",
        help="see `tf-gradcam methods` (default: gradcam, or that of an exported file)",
    )
    add_classifier_options(command, "it must have one: build it with an input size")
    add_out_option(command, "gradcam_rows")
    add_row_options(command)
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_engine_options(command)
    command.set_defaults(run=run_dataset_command, command=command)


def _add_report(commands) -> None:
    command = commands.add_parser(
        "report",
        help="write one HTML page of what `run` wrote",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.fill(_REPORT_DESCRIPTION, 100),
        epilog=f"{textwrap.fill(_REPORT_EXIT_CODES, 100)}\n\n{_REPORT_EXAMPLES}",
    )
    command.add_argument("folder", metavar="DIR", help="folder that `tf-gradcam run` wrote to")
    command.add_argument("--out", metavar="FILE", help="file to write (default: DIR-report.html, beside it)")
    command.add_argument(
        "--photos", metavar="DIR", help="folder that relative paths start from (default: the current one)"
    )
    command.add_argument(
        "--most",
        type=count,
        default=1000,
        metavar="N",
        help="images to show (default: %(default)s, below 25 MB)",
    )
    command.add_argument("--title", metavar="TEXT", help="the page's title (default: the model's name)")
    command.set_defaults(run=run_report, command=command)


def _add_evaluate(commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure how far the heatmaps of photographs can be trusted",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # The examples keep their lines.
        description=textwrap.fill(_EVALUATE_DESCRIPTION, 100),
        epilog=f"{textwrap.fill(_EVALUATE_EXIT_CODES, 100)}\n\n{_EVALUATE_EXAMPLES}",
    )
    add_photos_argument(command)
    add_measure_options(command)
    add_model_option(command)
    add_layer_options(command)
    add_target_option(command)
    command.add_argument(
        "--method", default="gradcam", metavar="M", help="see `tf-gradcam methods` (default: %(default)s)"
    )
    add_channels_option(command)
    add_classifier_options(command, "to 224 x 224 pixels")
    add_out_option(command, "evaluation")
    command.set_defaults(run=run_evaluate, command=command)


def _add_export(commands) -> None:
    command = commands.add_parser(
        "export",
        help="save a model together with its heatmaps, for a server or a device",
        description="Write a version folder DIR/1 for TensorFlow Serving, or one file for another runtime. A "
        "named model, or one with --preprocess, then takes uint8 pixels.",
    )
    add_export_options(command)
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
    add_out_option(command, "gradcam")
    command.set_defaults(run=run_serve_check, command=command)


def _add_layers(commands) -> None:
    command = commands.add_parser(
        "layers",
        help="list the layers of a model that can be explained",
        description="List every layer that can be explained, in order of execution, with its map's shape.",
    )
    add_model_option(command)
    command.set_defaults(run=run_layers, command=command)


def _add_methods(commands) -> None:
    command = commands.add_parser(
        "methods",
        help="list the methods that explain",
        description="List every method with its cost, sign, what it looks at, and paper.",
    )
    command.set_defaults(run=run_methods, command=command)
