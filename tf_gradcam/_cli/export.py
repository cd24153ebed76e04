"""The command `export`: a model saved together with its heatmaps."""

import argparse

from tf_gradcam._checks import printable
from tf_gradcam._cli.explain import asked_layer
from tf_gradcam._cli.terminal import import_tensorflow


def run_export(arguments: argparse.Namespace) -> int:
    import_tensorflow()
    from tf_gradcam import export_gradcam
    from tf_gradcam._cli.classifier import load_classifier, unchanged

    classifier = load_classifier(arguments.model, arguments.preprocess, arguments.labels)
    options = {"frozen": arguments.frozen, "labels": classifier.labels, "top_k": arguments.top_k}
    if arguments.format != "tensorflow":
        for name in [name for name in ("frozen", "top_k") if options[name]]:
            raise ValueError(f"`{name}` is for --format tensorflow alone. Leave it out.")
        options = {}
    written = export_gradcam(
        classifier.model,
        arguments.out,
        layer=asked_layer(arguments),
        method=arguments.method,
        preprocess=None if classifier.preprocess is unchanged else classifier.preprocess,
        format=arguments.format,
        **options,
    )
    print(f"{printable(written)} is written.")
    if arguments.format == "tensorflow":
        print(f"See what it answers: tf-gradcam serve-check {printable(arguments.out)} PHOTO")
    return 0
