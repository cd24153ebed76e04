"""The command line `tf-gradcam`: photographs in; pictures, explanations.json and a table out."""

from tf_gradcam._cli.main import main

__all__ = ["main"]
