#!/usr/bin/env bash
# A palette may have 512 entries of 8 bits, for pixels of 16 bits: PS3.3, C.7.6.3.1.5. pydicom 3.0.2 keeps the index of
# an entry in the type of the entries, uint8, so pixel 256 gets the colour of pixel 0, without a warning.
# Seen for pixels 0, 255, 256, 511 and entries that are 0 below 256 and 200 from there: 0, 0, 0, 0 in place of 0, 0, 200, 200.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

entries = np.repeat(np.array([0, 200], np.uint8), 256).tobytes()
dataset = Dataset()
for colour in ("Red", "Green", "Blue"):
    setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [512, 0, 8])
    setattr(dataset, f"{colour}PaletteColorLookupTableData", entries)
pixels = np.array([[0, 255, 256, 511]], np.uint16)
red = apply_color_lut(pixels, dataset)[0, :, 0].tolist()
print("red:", red)
assert red == [0, 0, 0, 0], "pydicom now looks entries above 255 up"
PYTHON
