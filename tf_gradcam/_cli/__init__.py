"""The command line."""

from tf_gradcam._cli.command_line import main

__all__ = ["main"]
