#!/usr/bin/env bash
# OpenCV 5.0.0 multiplies the colours of an RGBA TIFF by alpha / 255, with every flag; those of a PNG it leaves.
# Seen: colours of 200 under an alpha of 50 are read as 39 from the TIFF and as 200 from the PNG.
# The TIFF says EXTRASAMPLES = 2 (unassociated alpha), for which nothing is to be multiplied (TIFF 6.0, ExtraSamples).
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

rgba = np.full((4, 4, 4), 200, np.uint8)
rgba[..., 3] = 50
for name in ("picture.tif", "picture.png"):
    PIL.Image.fromarray(rgba).save(name)
assert PIL.Image.open("picture.tif").tag_v2[338] == (2,), "the alpha must be unassociated"
for flag in ("IMREAD_UNCHANGED", "IMREAD_COLOR"):
    tiff, png = (cv2.imread(name, getattr(cv2, flag))[0, 0, :3].tolist() for name in ("picture.tif", "picture.png"))
    print(f"{flag}: TIFF {tiff}, PNG {png}")
    assert tiff == [39, 39, 39], "OpenCV no longer multiplies the colours of a TIFF by its alpha"
    assert png == [200, 200, 200], "OpenCV now multiplies the colours of a PNG, too"
PYTHON
