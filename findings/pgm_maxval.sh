#!/usr/bin/env bash
# A binary PGM of 12 bits (maxval 4095) is read in three ways. Netpbm's pgm(5) calls maxval the white of the picture.
# Seen for 0, 1000, 2000, 4095: OpenCV 5.0.0 reads 0, 3, 7, 15 as 8 bits, near black, and the numbers themselves with
# IMREAD_UNCHANGED; Pillow 13.0.0 reads 0, 16004, 32007, 65535, and tells no maxval.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 opencv-python-headless==5.0.0.93 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import cv2
import numpy as np
import PIL.Image

values = np.array([0, 1000, 2000, 4095], ">u2")
with open("picture.pgm", "wb") as file:
    file.write(b"P5\n4 1\n4095\n" + values.tobytes())
eight = cv2.imread("picture.pgm", cv2.IMREAD_GRAYSCALE)[0].tolist()
own = cv2.imread("picture.pgm", cv2.IMREAD_UNCHANGED)[0].tolist()
scaled = np.asarray(PIL.Image.open("picture.pgm"))[0].tolist()
print("OpenCV, 8 bits:", eight, " OpenCV, unchanged:", own, " Pillow:", scaled)
assert eight == [0, 3, 7, 15], "OpenCV now heeds maxval where it makes 8 bits"
assert own == [0, 1000, 2000, 4095]
assert scaled == [0, 16004, 32007, 65535], "Pillow no longer scales to 65535"
PYTHON
