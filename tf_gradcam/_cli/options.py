"""Options that several commands have, and those of one that are many. `arguments` calls it."""

import argparse

from tf_gradcam._cli.option_types import (
    above_0,
    band_numbers,
    count,
    fraction,
    fraction_or_otsu,
    gpus,
    levels,
    names,
    pair,
)

_EXPORT_FORMATS = ("tensorflow", "litert", "onnx", "openvino")


def add_measure_options(parser) -> None:
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


def add_scan_options(parser) -> None:
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


def add_engine_options(parser) -> None:
    group = parser.add_argument_group("several machines")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="what explains: this process, or workers of a Ray cluster that can read the same files; needs "
        "tf_gradcam[ray] (default: %(default)s)",
    )
    group.add_argument(
        "--address",
        metavar="A",
        help="of the Ray cluster: HOST:PORT, or auto for the one that this machine is in (default: local, "
        "one of this machine alone, for this run)",
    )
    group.add_argument("--workers", type=count, metavar="N", help="processes that explain (default: 1)")
    group.add_argument(
        "--gpus", type=gpus, metavar="G", help="GPUs of each worker, such as 1 or 0.5 (default: 0)"
    )


def add_photos_argument(parser) -> None:
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO",
        help="file of a photograph or scan, folder, or glob. A folder is searched with its subfolders; "
        "hidden files, files that are no photographs, and pictures that tf-gradcam wrote are skipped",
    )


def add_model_option(parser) -> None:
    parser.add_argument(
        "--model",
        default="efficientnet_lite0",
        metavar="NAME|FILE",
        help="class of keras.applications such as ResNet50 (its ImageNet weights are downloaded once), or a "
        ".keras or .h5 file, which may not run code of its own; `explain` and `run` also take what `export` "
        "wrote: a .tflite, .onnx or .xml file, or a folder (default: %(default)s, embedded)",
    )


def add_threads_option(parser, default="every core; one for .tflite") -> None:
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help=f"how many threads a .tflite, .onnx or .xml file computes with (default: {default})",
    )


def add_layer_option(parser) -> None:
    parser.add_argument(
        "--layer",
        action="append",
        metavar="L",
        help="name or path of a layer; several times for several, fused (default: the last layer that has a "
        "feature map)",
    )


def add_layer_options(parser) -> None:
    add_layer_option(parser)
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


def add_channels_option(parser) -> None:
    parser.add_argument(
        "--channels",
        type=count,
        metavar="K",
        help="only the K strongest channels of the layer, for the methods that try them one by one, such as "
        "scorecam (default: all)",
    )


def add_target_option(parser) -> None:
    parser.add_argument(
        "--target", metavar="N|LABEL", help="class to explain: index or label (default: the predicted one)"
    )


def add_out_option(parser, out) -> None:
    parser.add_argument("--out", default=out, metavar="DIR", help="folder to write to (default: %(default)s)")


def add_classifier_options(parser, open_size="it has at most 512 pixels a side") -> None:
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


def add_export_options(parser) -> None:
    add_model_option(parser)
    add_layer_option(parser)
    parser.add_argument(
        "--method", default="gradcam", metavar="M", help="see `tf-gradcam methods` (default: %(default)s)"
    )
    add_classifier_options(parser)
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
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        help="how other formats store weights: float16 halves the file (default: %(default)s)",
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


def add_explain_options(parser, out) -> None:
    add_model_option(parser)
    add_threads_option(parser)
    add_layer_options(parser)
    add_class_options(parser)
    parser.add_argument(
        "--method",
        type=names,
        metavar="M[,M...]",
        help="name or names, comma-separated, to compare; see `tf-gradcam methods` (default: gradcam, or "
        "that of an exported file)",
    )
    add_channels_option(parser)
    add_out_option(parser, out)
    add_picture_options(parser)
    add_classifier_options(parser)


def add_class_options(parser) -> None:
    classes = parser.add_mutually_exclusive_group()
    add_target_option(classes)
    classes.add_argument(
        "--top",
        type=count,
        default=1,
        metavar="K",
        help="explain the K best classes, by one method (default: %(default)s)",
    )


def add_picture_options(parser) -> None:
    parser.add_argument(
        "--alpha", type=float, default=0.7, metavar="A", help="opacity of the heatmap (default: %(default)s)"
    )
    parser.add_argument(
        "--fade",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fade the colours out where the heatmap is low (default: yes)",
    )
    parser.add_argument("--colormap", metavar="C", help="OpenCV's name of it, such as jet (default: plasma)")
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


def add_scale_options(parser) -> None:
    parser.add_argument(
        "--vmax",
        type=above_0,
        metavar="V",
        help="the value of the signed map that gets the full colour in every picture, to compare them "
        "(default: each heatmap is divided by its own maximum)",
    )
    parser.add_argument(
        "--signed",
        action="store_true",
        help="also draw what speaks against the class, in blue; what speaks for it is red. "
        "`tf-gradcam methods` says which methods tell the two apart. Not for scans",
    )
    parser.add_argument(
        "--contour",
        type=levels,
        metavar="L[,L...]",
        help="draw lines at these shares of the full colour, such as 0.25,0.5,0.75, instead of colours",
    )


def add_row_options(parser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="of the maps (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=count, default=32, metavar="N", help="images together (default: %(default)s)"
    )
    parser.add_argument(
        "--draft",
        action="store_true",
        help="decode large JPEG files at the smallest size that fills the model's input: faster, other maps",
    )
    parser.add_argument("--restart", action="store_true", help="remove an earlier run's rows, and begin anew")
    parser.add_argument(
        "--to",
        type=names,
        default=(),
        metavar="FORM[,FORM...]",
        help="also write the rows in other forms, beside the folder: csv, a table without the maps; zarr, "
        "the maps as arrays; pictures, overlays on one scale in folders like the photographs'; fiftyone, a "
        "data set that FiftyOne imports",
    )
