"""The command `report`: one HTML page of what `run` wrote."""

import argparse

from tf_gradcam._checks import printable


def run_report(arguments: argparse.Namespace) -> int:
    from tf_gradcam._report import write_report

    path = write_report(
        arguments.folder,
        arguments.out,
        photos=arguments.photos,
        most=arguments.most,
        title=arguments.title,
    )
    print(f"{printable(path)}: {path.stat().st_size / 1e6:.1f} MB")
    return 0
