"""The command line `tf-gradcam`: photographs in; pictures, explanations.json and a table out."""

from tf_gradcam._cli.main import main
from tf_gradcam._cli.process import run_process

__all__ = ["main", "run_process"]
