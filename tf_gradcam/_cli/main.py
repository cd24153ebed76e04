"""Run the command line and return its exit code. `process` calls it, and whoever wants no process of its own.

The modules of `_cli` import TensorFlow, NumPy, OpenCV and matplotlib inside the functions that need them, so
that `--help` and a mistyped command are answered at once.
"""

import argparse
from collections.abc import Sequence

from tf_gradcam._checks import is_disk_full
from tf_gradcam._cli.arguments import make_parser
from tf_gradcam._cli.signals import describe_interrupt, interrupt_code, raise_on_signals
from tf_gradcam._cli.terminal import NOT_WRITTEN, print_problem


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments, without the program's name; by default those of the process.

    Returns:
        The exit code, which `tf-gradcam explain --help` lists.
    """
    return run_command(make_parser().parse_args(argv))


def run_command(arguments: argparse.Namespace) -> int:
    """Run a command by its arguments, print what is wrong, and return the exit code."""
    try:
        with raise_on_signals():
            return arguments.run(arguments)
    except KeyboardInterrupt as interrupt:
        print_problem(describe_interrupt(interrupt), arguments)
        return interrupt_code(interrupt)
    except (ValueError, TypeError, ImportError, OSError) as error:
        print_problem(error, arguments)
        return NOT_WRITTEN if is_disk_full(error) else 2
