#!/usr/bin/env bash
# OpenSlide 4.0.1 interpolates pixels of a lower level, and at its edge fades them out, where the downsample is no whole number.
# Seen: a level that holds 0 and 255 only is read from (0, 0) as it is; a window that begins at pixel 100 holds 12 values, and one
# that ends at the last pixel has an alpha below 255 there. For a downsample of 2, not the level of 2.0026 is the best, but level 0.
# tiffslide 3.0.1 sees one level where OpenSlide sees two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 openslide-bin==4.0.1.2 openslide-python==1.4.7 tifffile==2026.3.3 tiffslide==3.0.1
cd "$folder"
venv/bin/python - <<'PYTHON'
import numpy as np
import openslide
import tifffile
import tiffslide

random = np.random.default_rng(0)
levels = [random.choice([0, 255], (height, width, 1)) for height, width in ((1801, 2220), (899, 1109))]
with tifffile.TiffWriter("slide.tif") as file:
    for number, level in enumerate(levels):
        rgb = np.repeat(level, 3, axis=-1).astype("uint8")
        file.write(rgb, subfiletype=number, tile=(256, 256), photometric="rgb", metadata=None)

slide = openslide.OpenSlide("slide.tif")
downsample = slide.level_downsamples[1]
print(f"downsamples: {slide.level_downsamples}, best level for 2: {slide.get_best_level_for_downsample(2)}")
assert slide.get_best_level_for_downsample(2) == 0, "OpenSlide now takes the level of 2.0026 for 2"

whole = np.asarray(slide.read_region((0, 0), 1, slide.level_dimensions[1]))
place = round(100 * downsample)
window = np.asarray(slide.read_region((place, place), 1, (64, 64)))
print(f"values in the whole level: {len(np.unique(whole[..., :3]))}, in a window: {len(np.unique(window[..., :3]))}")
assert len(np.unique(whole[..., :3])) == 2, "the whole level is no longer read as it is"
assert len(np.unique(window[..., :3])) > 2, "OpenSlide no longer interpolates between pixels of a level"

column = max(range(1000, 1109), key=lambda column: round(column * downsample) - column * downsample)
last = np.asarray(slide.read_region((round(column * downsample), 0), 1, (1109 - column, 1)))[0, -1, 3]
print(f"alpha of the last pixel: {whole[0, -1, 3]} in the whole level, {last} in a window")
assert whole[0, -1, 3] == 255, "the last pixel of the whole level is no longer opaque"
assert last < 255, "OpenSlide no longer fades the last pixel out"

count = tiffslide.TiffSlide("slide.tif").level_count
print(f"levels: {slide.level_count} in OpenSlide, {count} in tiffslide")
assert (slide.level_count, count) == (2, 1), "tiffslide now sees the second level"
PYTHON
