"""Where `tf-gradcam` begins, and its exit codes. The installed script and `python -m tf_gradcam` call it.

The modules of `_cli` import TensorFlow, NumPy, OpenCV and matplotlib inside the functions that need them, so
that `--help` and a mistyped command are answered at once.
"""

from collections.abc import Sequence

from tf_gradcam._cli.arguments import make_parser
from tf_gradcam._cli.terminal import print_problem


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments, without the program's name; by default those of the process.

    Returns:
        The exit code: 0; 1 when a photograph couldn't be explained; 2 for wrong usage; 130 when interrupted.
    """
    arguments = make_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print_problem("interrupted", arguments)
        return 130
    except (ValueError, TypeError, ImportError, OSError) as error:
        print_problem(error, arguments)
        return 2
