"""`tf-gradcam`, and `python -m tf_gradcam`: the process of the command line, from its first moment."""

import signal
import sys


def run() -> int:
    """Run the command line of this process, and return its exit code."""
    # Until the command handles signals, Ctrl-C ends the process as other programs: without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tf_gradcam._cli import run_process

    return run_process()


if __name__ == "__main__":
    sys.exit(run())
