"""Read the files of the fields, and write heatmaps back in the fields' own formats; never imports TensorFlow.

Users call `read`, `write` and `write_pictures`; `tf_gradcam.load_image` and the command line do, too. Each
format has a module of its own, which alone imports the format's library.
"""

from tf_gradcam.formats._catalogue import is_scan, name_of_format
from tf_gradcam.formats._reading import read
from tf_gradcam.formats._scan import Scan
from tf_gradcam.formats._writing import write, write_pictures

__all__ = ["Scan", "is_scan", "name_of_format", "read", "write", "write_pictures"]
