"""The command `export`: a model saved together with its heatmaps."""

import argparse
import errno
import os

from tf_gradcam._checks import printable
from tf_gradcam._cli.explain import requested_layer
from tf_gradcam._cli.terminal import import_tensorflow


def run_export(arguments: argparse.Namespace) -> int:
    from tf_gradcam._cli.classifier import check_needs_keras, load_classifier, unchanged

    check_needs_keras(arguments.model)
    import_tensorflow()
    from tf_gradcam import export_gradcam

    classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
    options = {"frozen": arguments.frozen, "labels": classifier.labels, "top_k": arguments.top_k}
    options["boxes"] = arguments.boxes
    if arguments.format != "tensorflow":
        given = {"frozen": arguments.frozen, "top_k": arguments.top_k, "boxes": arguments.boxes is not None}
        for name in [name for name in given if given[name]]:
            raise ValueError(f"`{name}` is for --format tensorflow alone. Leave it out.")
        options = {"labels": classifier.labels}
    try:
        written = export_gradcam(
            classifier.model,
            arguments.out,
            layer=requested_layer(arguments),
            method=arguments.method,
            preprocess=None if classifier.preprocess is unchanged else classifier.preprocess,
            format=arguments.format,
            precision=arguments.precision,
            **options,
        )
    except Exception as error:  # TensorFlow's errors are not OSErrors.
        if not _says_disk_is_full(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments.out) from error
    print(f"{printable(written)} is written.")
    if arguments.format != "tensorflow":
        print(f"Explain with it: tf-gradcam explain PHOTO --model {printable(written)}")
    else:
        print(f"See what it answers: tf-gradcam serve-check {printable(arguments.out)} PHOTO")
    return 0


def _says_disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, is about a full disk."""
    from tf_gradcam._checks import is_disk_full

    while error is not None:
        if is_disk_full(error) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
