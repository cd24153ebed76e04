#!/usr/bin/env bash
# Pillow 13.0.0 scrambles an uncompressed TIFF that lies on its side (orientation 5 to 8) when it is opened by path.
# From bytes it reads the same file right.
# Seen for [[0, 1, 2], [3, 4, 5]] of orientation 6: by path (2, 3) [[4, 2, 0], [5, 3, 1]], from bytes (3, 2)
# [[3, 0], [4, 1], [5, 2]], as TIFF 6.0 has it under Orientation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 pillow==13.0.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import io
import pathlib

import numpy as np
import PIL.Image

stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
right = {5: stored.T, 6: stored.T[:, ::-1], 7: stored.T[::-1, ::-1], 8: stored.T[::-1]}
for orientation, expected in right.items():
    PIL.Image.fromarray(stored).save("picture.tif", tiffinfo={274: orientation})
    data = pathlib.Path("picture.tif").read_bytes()
    by_path = np.asarray(PIL.Image.open("picture.tif"))
    by_bytes = np.asarray(PIL.Image.open(io.BytesIO(data)))
    print(f"orientation {orientation}: by path {by_path.tolist()}, from bytes {by_bytes.tolist()}")
    assert np.array_equal(by_bytes, expected), "from bytes it was right"
    assert not np.array_equal(by_path, expected), "by path it is right now, too"
PYTHON
