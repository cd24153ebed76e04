"""Import an optional package or find a file of it, or say how to install it, for every module."""

import importlib
import importlib.util
import pathlib
from typing import Any


def require(module: str, package: str, extra: str = "") -> Any:
    """Import and return a module of an optional package.

    Args:
        module: the module to import, such as `"cv2"`.
        package: the package that installs it, such as `"opencv-python"`.
        extra: the extra of this package that installs it, such as `"dicom"`, if there is one.

    Raises:
        ImportError: if it can't be imported; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        purpose = f"for the extra `{extra}`" if extra else "to read and draw images"
        install = f'"tf_gradcam[{extra}]"' if extra else package
        headless = " (or opencv-python-headless, for a machine without libGL)" if module == "cv2" else ""
        raise ImportError(
            f"tf_gradcam needs `{package}` {purpose}, and it can't be imported: {error}. "
            f"Install it: pip install {install}{headless}"
        ) from error


def packaged_file(package: str, file: str, who: str) -> pathlib.Path:
    """Return the path of a photograph that a package installs, without running any of the package's code.

    Args:
        package: the package's module, such as `"skimage"`.
        file: the path inside it, such as `"data/coffee.png"`.
        who: what needs the file, for the message.

    Raises:
        ImportError: if it is not installed; the message says how to install it.
    """
    spec = importlib.util.find_spec(package)
    folders = (spec and spec.submodule_search_locations) or ()
    for path in (pathlib.Path(folder, file) for folder in folders):
        if path.is_file():
            return path
    raise ImportError(f'{who} needs {package}\'s {file}. Install it: pip install "tf_gradcam[demo]"')
