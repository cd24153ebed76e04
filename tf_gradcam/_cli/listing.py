"""The commands `layers` and `methods`: tables of what can be explained, and by which methods."""

import argparse
import contextlib

from tf_gradcam._cli.terminal import format_shape, import_tensorflow, print_table


def run_layers(arguments: argparse.Namespace) -> int:
    from tf_gradcam._cli.classifier import check_needs_keras, load_classifier

    check_needs_keras(arguments.model)
    import_tensorflow()
    from tf_gradcam._layers import default_layer, list_layers

    model = load_classifier(arguments.model).model
    default = None
    with contextlib.suppress(ValueError):  # There may be no layer that all scores depend on.
        default = default_layer(model).layer
    rows = []
    for info in list_layers(model):
        notes = [f"runs {info.calls} times"] if info.calls > 1 else []
        notes += ["default"] if info.layer is default else []
        rows.append((info.path, type(info.layer).__name__, format_shape(info.shape), ", ".join(notes)))
    print_table(("layer", "class", "map (h x w x channels)", ""), rows)
    return 0


def run_methods(arguments: argparse.Namespace) -> int:
    import_tensorflow()
    from tf_gradcam import methods
    from tf_gradcam._methods import is_at_image, is_classless

    rows = []
    for name, about in methods.METHODS.items():
        place = "image" if is_at_image(about.method) else "layer"
        place += ", no class" if is_classless(about.method) else ""
        rows.append((name, about.cost, "yes" if about.signed else "no", place, about.paper))
    print_table(("method", "forward passes", "signed", "looks at", "paper"), rows)
    print(
        "forward passes: the cost; K: channels of the layer, see --channels; n: samples or masks\n"
        "signed, yes: negative values mark evidence against the class\n"
        "no class: its map is the same for every class\n"
        "locate: gradcam times gradcam_elementwise on a finer grid, to find an object; it finds the layers"
    )
    return 0
