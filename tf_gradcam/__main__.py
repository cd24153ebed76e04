"""`python -m tf_gradcam` is `tf-gradcam`."""

import sys

from tf_gradcam._cli import run_process

if __name__ == "__main__":
    sys.exit(run_process())
