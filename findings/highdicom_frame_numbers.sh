#!/usr/bin/env bash
# A frame may be made from several frames of one file: Referenced Frame Number has one value or more, PS3.6. highdicom
# 0.28.2 writes such a file, but opening it ends in an error of SQLite, "type 'MultiValue' is not supported", even to
# read its pixels. pydicom reads it, and Debian's dciodvfy finds no fault in the list.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    highdicom==0.28.2 numpy==2.4.6 pydicom==3.0.2
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import sqlite3

import highdicom
import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes

source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
mapping = highdicom.pm.RealWorldValueMapping("MAP", "map", codes.UCUM.NoUnits, (0.0, 1.0))
window = highdicom.VOILUTTransformation(0.5, 1.0)
made = highdicom.pm.ParametricMap(
    [source], np.zeros((128, 128), np.float32), highdicom.UID(), 1, highdicom.UID(), 1,
    "maker", "model", "1", "1", False, [mapping], voi_lut_transformations=[window],
)
(item,) = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
for numbers in (1, [1, 2]):
    item.ReferencedFrameNumber = numbers
    made.save_as("map.dcm")
    assert pydicom.dcmread("map.dcm").pixel_array.shape == (128, 128)
    try:
        print(numbers, "is read:", highdicom.imread("map.dcm").get_frames().shape)
        failed = False
    except sqlite3.ProgrammingError as error:
        print(numbers, "is not read:", error)
        failed = True
    assert failed == (numbers == [1, 2]), "highdicom now reads lists of frame numbers"
PYTHON
