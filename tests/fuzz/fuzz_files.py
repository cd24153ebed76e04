"""Photographs in every format, damaged: does `load_image` give pixels, or an error that names its argument?

    make fuzz

The files are damaged in memory and never written. They are read in a process of its own, which a decoder
may end.
"""

import argparse
import functools
import io
import json
import subprocess
import sys

import numpy as np
import PIL.Image
from fuzz_tally import Tally

from tf_gradcam import load_image

# Format, mode, and options of Pillow.
VARIANTS = [
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
]
VARIANTS += [("PNG", "RGB", {}), ("PNG", "P", {}), ("PNG", "RGBA", {}), ("PNG", "1", {}), ("PNG", "I;16", {})]
VARIANTS += [
    ("GIF", "P", {}),
    ("GIF", "P", {"transparency": 3}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("PPM", "RGB", {}),
]
VARIANTS += [
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("TIFF", "RGB", {}),
    ("TIFF", "F", {}),
]
VARIANTS += [
    ("TIFF", "RGB", {"compression": way}) for way in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")
]
VARIANTS += [
    ("TIFF", "I;16", {}),
    ("TIFF", "CMYK", {}),
    ("PPM", "L", {}),
    ("JPEG2000", "RGB", {}),
    ("AVIF", "RGB", {}),
]
NUMBERS = [b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\xff\xff\0\0", b"\0" * 4, b"\0\1\0\0"]
FILES_OF_ONE_PROCESS = 500


def good_files():
    """Return a file of each variant that this Pillow can write."""
    rows, columns = np.mgrid[:60, :80]
    noise = np.random.default_rng(0).integers(0, 60, (60, 80, 3))
    pixels = (np.stack([rows * 3, columns * 2, rows + columns], axis=-1) + noise).clip(0, 255).astype("uint8")
    found = []
    for kind, mode, options in VARIANTS:
        file = io.BytesIO()
        picture = PIL.Image.fromarray(pixels)
        if mode == "I;16":
            picture = PIL.Image.fromarray(pixels[..., 0].astype("uint16") * 257)
        try:
            picture.convert(mode).save(file, kind, **options)
        except (KeyError, OSError):  # no such encoder
            continue
        found.append(file.getvalue())
    return found


def damaged(random, data, other):
    """Return a file with one kind of damage; `other` is another file."""
    changed, size = bytearray(data), len(data)
    kind, near = random.integers(9), random.integers(2)
    start = int(random.integers(min(size, 200) if near else size))
    length = int(random.integers(1, 2000))
    if kind == 0:  # bits
        for place in random.integers(0, min(size, 200) if near else size, random.integers(1, 40)):
            changed[place] ^= 1 << int(random.integers(8))
    elif kind == 1:  # bytes
        for place in random.integers(0, size, random.integers(1, 200)):
            changed[place] = random.integers(256)
    elif kind == 2:
        del changed[start:]
    elif kind == 3:
        del changed[start : start + length]
    elif kind == 4:
        changed[start : start + length] = bytes(len(changed[start : start + length]))
    elif kind == 5:
        changed[start:start] = random.bytes(length) if near else changed[start : start + length]
    elif kind == 6:  # large numbers where lengths may be
        changed[start : start + 4] = NUMBERS[random.integers(len(NUMBERS))]
    elif kind == 7:
        changed = bytearray(data[: size // 2] + other[len(other) // 2 :])
    else:
        changed[start : start + length] = changed[start : start + length][::-1]
    return bytes(changed)


def read_damaged(seed, first, count, tally):
    """Damage files and read them."""
    files = good_files()
    for number in range(first, first + count):
        random = np.random.default_rng([seed, number])
        data = damaged(random, *(files[random.integers(len(files))] for _ in range(2)))
        size = None if number % 2 else (7, 9)
        print(number, file=sys.stderr, flush=True)
        tally.call(
            f"load_image, file {number}",
            {"source"},
            functools.partial(load_image, data, size),
            _wrong_with(size),
        )


def _wrong_with(size):
    def check(pixels):
        is_right = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0
        return None if is_right and size in (None, pixels.shape[:2]) else f"{pixels.dtype} {pixels.shape}"

    return check


def read_in_process(seed, first, count):
    """Return the tally of files that a process of its own damaged and read."""
    numbers = map(str, (seed, first, count))
    done = subprocess.run(
        [sys.executable, __file__, "--child", *numbers], capture_output=True, text=True, timeout=600
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    tally = Tally()
    tally.ended(f"a file ended its process: {done.stderr[-200:]!r}")
    return tally.as_json()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=3, metavar=("SEED", "FIRST", "COUNT"))
    options = parser.parse_args()
    total = Tally()
    if options.child:
        read_damaged(*options.child, total)
        print(json.dumps(total.as_json()))
        return
    for first in range(0, options.files, FILES_OF_ONE_PROCESS):
        total.add(read_in_process(options.seed, first, min(FILES_OF_ONE_PROCESS, options.files - first)))
    print(f"damaged files: {total}")
    sys.exit(total.fault_count > 0)


if __name__ == "__main__":
    main()
