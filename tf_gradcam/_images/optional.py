"""Import an optional package, or say how to install it: `require`. Every module that needs one calls it."""

import importlib
from typing import Any


def require(module: str, package: str) -> Any:
    """Import and return a module of an optional package.

    Args:
        module: the module to import, such as `"cv2"`.
        package: the package that installs it, such as `"opencv-python"`.

    Raises:
        ImportError: if it can't be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        headless = " (or opencv-python-headless, for a machine without libGL)" if module == "cv2" else ""
        raise ImportError(
            f"tf_gradcam needs `{package}` to read and draw images, and it can't be imported: {error}. "
            f"Install it: pip install {package}{headless}"
        ) from error
