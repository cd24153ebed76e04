#!/usr/bin/env bash
# PresentationLUTShape INVERSE asks for the negative of an image: PS3.3, C.11.6.1.2. pydicom 3.0.2 subtracts from the
# highest value of the array, not from the highest possible one, so one grey is shown as another in each image of a
# series, and a black image stays black.
# Seen for arrays of 8 bits with 0 and 100, with 0 and 200, and with 0 alone: the 0 becomes 100, 200 and 0; white is 255.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_presentation_lut

dataset = Dataset()
dataset.PresentationLUTShape = "INVERSE"
dataset.BitsStored = 8
shown = [int(apply_presentation_lut(np.array([0, high], np.uint8), dataset)[0]) for high in (100, 200, 0)]
print("0 is shown as", shown)
assert shown == [100, 200, 0], "pydicom now subtracts from something else"
PYTHON
