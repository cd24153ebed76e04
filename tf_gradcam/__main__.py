"""`python -m tf_gradcam` is `tf-gradcam`."""

import sys

from tf_gradcam._cli import main

if __name__ == "__main__":
    sys.exit(main())
