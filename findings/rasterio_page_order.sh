#!/usr/bin/env bash
# rasterio 1.4.4 lists the pages of a TIFF in the order of their names as text: 1, 10, 11, 12, 13, 2, 3, ...
# Seen: of 13 pages, the third in the list is page 11. Slices, or bands in 13 pages, that are stacked as listed are mixed up.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 rasterio==1.4.4 tifffile==2026.3.3
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import rasterio
import tifffile

pages = np.arange(1, 14, dtype="uint8")[:, None, None] * np.ones((1, 8, 8), "uint8")
tifffile.imwrite("stack.tif", pages, photometric="minisblack")
with rasterio.open("stack.tif") as file:
    names = file.subdatasets
found = []
for name in names:
    with rasterio.open(name) as page:
        found.append(int(page.read(1)[0, 0]))
print("pages in the order of rasterio's subdatasets:", found)
assert tifffile.imread("stack.tif")[:, 0, 0].tolist() == list(range(1, 14)), "the file itself is in order"
assert found == [1, 10, 11, 12, 13, 2, 3, 4, 5, 6, 7, 8, 9], "rasterio now lists pages by number"
PYTHON
