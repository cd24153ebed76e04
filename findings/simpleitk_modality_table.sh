#!/usr/bin/env bash
# A file says what its stored pixels mean by a slope or by a table, Modality LUT Sequence: PS3.3, C.11.1. SimpleITK 2.5.7
# applies the slope and leaves the table out, without a warning: it answers the stored pixels.
# Seen for pixels 0, 1, 2 and the table 500, 300, 4000: SimpleITK reads 0, 1, 2; pydicom 3.0.2 gives 500, 300, 4000.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 pydicom==3.0.2 simpleitk==2.5.7
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
import pydicom
import SimpleITK
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
del dataset.RescaleSlope, dataset.RescaleIntercept
dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 1, 3, 0
dataset.PixelData = np.array([0, 1, 2], "<u2").tobytes()
for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
    dataset.pop(name, None)
table = Dataset()
table.add_new("LUTDescriptor", "US", [3, 0, 16])
table.add_new("LUTData", "US", [500, 300, 4000])
table.ModalityLUTType = "US"
dataset.ModalityLUTSequence = [table]
dataset.save_as("table.dcm")
read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("table.dcm")).ravel().tolist()
dataset = pydicom.dcmread("table.dcm")
meant = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset).ravel().tolist()
print("SimpleITK:", read, " pydicom:", meant)
assert meant == [500, 300, 4000]
assert read == [0, 1, 2], "SimpleITK now applies the table"
PYTHON
