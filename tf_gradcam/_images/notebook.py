"""A figure that a notebook draws once. `show` creates it, and imports this module, and matplotlib, late."""

from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure


class DrawnOnceFigure(Figure):
    """A figure of pyplot that matplotlib's inline backend does not draw again after it was a cell's value.

    The inline backend draws all figures of pyplot at the end of a cell. If one of them is the value of the
    cell's last line, IPython displays it before that, and it would be drawn twice.
    """

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """Remove this figure from pyplot when IPython displays it, and leave the picture to IPython."""
        if "inline" in matplotlib.get_backend().lower():
            pyplot.close(self)
        return {}
