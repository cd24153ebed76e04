"""Files of every format and mode: their own values, upright, the same as path, bytes and PIL image."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest

from tf_gradcam._images.read import load_image, read_values

HEIGHT, WIDTH = 34, 40
RANDOM = np.random.default_rng(0)
RGB = cv2.resize(RANDOM.integers(0, 256, (4, 5, 3), np.uint8), (WIDTH, HEIGHT))
GREY = np.ascontiguousarray(RGB[..., 1])
ALPHA = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
INDEX = (ALPHA // 16).astype(np.uint8)
PALETTE = RANDOM.integers(0, 256, (16, 3), np.uint8)
GREY16 = RANDOM.integers(0, 65536, (HEIGHT, WIDTH), np.uint16)
RGB16 = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 3), np.uint16)
GREY12 = GREY16 >> 4  # of 0 to 4095
SIGNED16 = (GREY16 >> 3).astype(np.int16) - 1024  # Hounsfield units, say
SMOOTH16 = cv2.resize(RANDOM.integers(0, 65536, (4, 5, 3), np.uint16), (WIDTH, HEIGHT))
UNIT = (GREY16 / 65535).astype(np.float32)


def encode(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def pillow(pixels, format, mode=None, **options):
    picture = PIL.Image.fromarray(pixels)
    return encode(picture.convert(mode) if mode else picture, format, **options)


def if_written(write, *arguments, **options):
    """Return a file, or `None` where this version of Pillow or OpenCV doesn't write it."""
    try:
        return write(*arguments, **options)
    except (OSError, KeyError, cv2.error):
        return None


def palette(format, **options):
    picture = PIL.Image.fromarray(INDEX).convert("P")
    picture.putpalette(PALETTE.tobytes())
    return encode(picture, format, **options)


def grey_and_alpha():
    return PIL.Image.merge("LA", [PIL.Image.fromarray(GREY), PIL.Image.fromarray(ALPHA)])


def with_alpha():
    return np.dstack([RGB, ALPHA])


def opencv(suffix, pixels, *options):
    pixels = pixels[..., 2::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def png(values, color, bits=16, chunks=()):
    """A PNG by hand: Pillow writes no grey with alpha of 16 bits."""
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, color, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def tiff(values, endian="<", **tags):
    """A TIFF by hand, of any dtype, with `photometric`, `extra` samples, `bits` and `orientation`."""
    order = {"<": b"II*\0", ">": b"MM\0*"}[endian]
    height, width, *channels = values.shape
    samples = channels[0] if channels else 1
    bits = tags.get("bits", 8 * values.dtype.itemsize)
    if bits == 12:  # two values in three bytes
        first, second = values.astype(np.uint32).reshape(-1, 2).T
        joined = (first << 12 | second).astype(">u4").view(np.uint8).reshape(-1, 4)
        body = joined[:, 1:].tobytes()
    else:
        body = values.astype(values.dtype.newbyteorder(endian)).tobytes()
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = [
        (256, [width]),
        (257, [height]),
        (258, [bits] * samples),
        (259, [1]),
        (262, [tags.get("photometric", 2 if samples >= 3 else 1)]),
        (273, [0]),
        (274, [tags.get("orientation", 1)]),
        (277, [samples]),
        (278, [height]),
        (279, [len(body)]),
        (338, tags.get("extra", [])),
        (339, [sample_format] * samples),
    ]
    entries = [(tag, numbers) for tag, numbers in entries if numbers]
    end = 8 + 2 + 12 * len(entries) + 4  # of the directory; the long entries follow it, then the values
    long_size = sum(2 * len(numbers) for _, numbers in entries if len(numbers) > 2)
    directory, long_entries = struct.pack(endian + "H", len(entries)), b""
    for tag, numbers in entries:
        kind, size = (4, "I") if tag in (273, 279) else (3, "H")
        numbers = [end + long_size] if tag == 273 else numbers
        packed = struct.pack(f"{endian}{len(numbers)}{size}", *numbers)
        if len(packed) > 4:
            long_entries += packed
            packed = struct.pack(endian + "I", end + len(long_entries) - len(packed))
        directory += struct.pack(endian + "HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    return order + struct.pack(endian + "I", 8) + directory + bytes(4) + long_entries + body


def pnm(kind, values, maximum):
    header = b"%s # a comment\n%d %d\n%d\n" % (kind, values.shape[1], values.shape[0], maximum)
    if kind in (b"P5", b"P6"):
        return header + values.astype(">u2" if maximum > 255 else "u1").tobytes()
    return header + "\n".join(" ".join(map(str, row.ravel())) for row in values).encode() + b"\n"


def as_declared(values, maximum):
    return np.rint(values / maximum * 255).astype(np.uint8)


def upper_eight(values):
    return (values >> 8).astype(np.uint8)


REFUSED = "refused"  # as pixels, without a window
BITS = np.where(GREY > 127, 255, 0).astype(np.uint8)
# What the file holds, and the pixels that people see: those values themselves, unless it says otherwise.
FILES = {
    "PNG 1": (pillow(BITS, "PNG", "1"), BITS),
    "PNG L": (pillow(GREY, "PNG"), GREY),
    "PNG LA": (encode(grey_and_alpha(), "PNG"), GREY),
    "PNG P": (palette("PNG"), PALETTE[INDEX]),
    "PNG P with transparency": (palette("PNG", transparency=bytes(range(16))), PALETTE[INDEX]),
    "PNG P with one transparent colour": (palette("PNG", transparency=3), PALETTE[INDEX]),
    "PNG RGB": (pillow(RGB, "PNG"), RGB),
    "PNG RGB with a transparent colour": (
        pillow(RGB, "PNG", transparency=tuple(int(value) for value in RGB[0, 0])),
        RGB,
    ),
    "PNG RGBA": (pillow(with_alpha(), "PNG"), RGB),
    "PNG I;16": (pillow(GREY16, "PNG"), GREY16, upper_eight(GREY16)),
    "PNG I;16 of 12 bits": (pillow(GREY12, "PNG"), GREY12, upper_eight(GREY12)),
    "PNG I;16 with gamma": (
        png(GREY16, 0, chunks=[(b"gAMA", struct.pack(">I", 100_000))]),
        GREY16,
        upper_eight(GREY16),
    ),
    "PNG LA of 16 bits": (png(np.stack([GREY16, GREY12], -1), 4), GREY16, upper_eight(GREY16)),
    "PNG RGB of 16 bits": (opencv(".png", RGB16), RGB16, upper_eight(RGB16)),
    "PNG RGB of 12 bits": (opencv(".png", RGB16 >> 4), RGB16 >> 4, upper_eight(RGB16 >> 4)),
    "PNG RGBA of 16 bits": (png(np.dstack([RGB16, GREY12]), 6), RGB16, upper_eight(RGB16)),
    "TIFF 1": (pillow(BITS, "TIFF", "1"), BITS),
    "TIFF L": (tiff(GREY), GREY),
    "TIFF L that begins with white": (tiff(GREY, photometric=0), 255 - GREY),
    "TIFF LA": (encode(grey_and_alpha(), "TIFF"), GREY),
    "TIFF P": (palette("TIFF"), PALETTE[INDEX]),
    "TIFF RGB": (tiff(RGB), RGB),
    "TIFF RGB compressed": (pillow(RGB, "TIFF", compression="tiff_deflate"), RGB),
    "TIFF RGBA": (tiff(with_alpha(), extra=[2]), RGB),
    "TIFF RGBA compressed": (pillow(with_alpha(), "TIFF", compression="tiff_lzw"), RGB),
    "TIFF RGB and a band": (tiff(with_alpha(), extra=[0]), RGB),
    "TIFF RGB multiplied by alpha": (tiff(with_alpha(), extra=[1]), RGB),
    "TIFF I;16": (tiff(GREY16), GREY16, upper_eight(GREY16)),
    "TIFF I;16B": (tiff(GREY16, ">"), GREY16, upper_eight(GREY16)),
    "TIFF I;16 of 12 bits": (tiff(GREY12), GREY12, upper_eight(GREY12)),
    "TIFF I;16 compressed": (
        pillow(GREY16, "TIFF", compression="tiff_deflate"),
        GREY16,
        upper_eight(GREY16),
    ),
    "TIFF of 12 packed bits": (tiff(GREY12, bits=12), GREY12, as_declared(GREY12, 4095)),
    "TIFF int16": (tiff(SIGNED16), SIGNED16, REFUSED),
    "TIFF int16 big-endian": (tiff(SIGNED16, ">"), SIGNED16, REFUSED),
    "TIFF int8": (tiff((GREY.astype(int) - 128).astype(np.int8)), GREY.astype(int) - 128, REFUSED),
    "TIFF int32": (tiff(GREY12.astype(np.int32)), GREY12, REFUSED),
    "TIFF uint32": (tiff(GREY12 * np.uint32(1_000_000)), GREY12 * np.uint32(1_000_000), REFUSED),
    "TIFF float": (tiff(UNIT), UNIT, as_declared(UNIT, 1)),
    "TIFF float big-endian": (tiff(UNIT, ">"), UNIT, as_declared(UNIT, 1)),
    "TIFF float beyond 1": (tiff(UNIT * 300), UNIT * 300, REFUSED),
    "TIFF RGB of 16 bits": (tiff(RGB16), RGB16, upper_eight(RGB16)),
    "TIFF RGBA of 16 bits": (tiff(np.dstack([RGB16, GREY12]), extra=[2]), RGB16, upper_eight(RGB16)),
    "TIFF of two pages": (
        pillow(RGB, "TIFF", save_all=True, append_images=[PIL.Image.fromarray(RGB[::-1])]),
        RGB,
    ),
    "PBM": (pillow(BITS, "PPM", "1"), BITS),
    "PGM 255": (pnm(b"P5", GREY, 255), GREY),
    "PGM 100": (pnm(b"P5", GREY % 101, 100), GREY % 101, as_declared(GREY % 101, 100)),
    "PGM 1023": (pnm(b"P5", GREY16 >> 6, 1023), GREY16 >> 6, as_declared(GREY16 >> 6, 1023)),
    "PGM 4095": (pnm(b"P5", GREY12, 4095), GREY12, as_declared(GREY12, 4095)),
    "PGM 65535": (pnm(b"P5", GREY16, 65535), GREY16, as_declared(GREY16, 65535)),
    "PGM 100 as text": (pnm(b"P2", GREY % 101, 100), GREY % 101, as_declared(GREY % 101, 100)),
    "PGM 4095 as text": (pnm(b"P2", GREY12, 4095), GREY12, as_declared(GREY12, 4095)),
    "PPM 255": (pnm(b"P6", RGB, 255), RGB),
    "PPM 1023": (pnm(b"P6", RGB16 >> 6, 1023), RGB16 >> 6, as_declared(RGB16 >> 6, 1023)),
    "PPM 4095": (pnm(b"P6", RGB16 >> 4, 4095), RGB16 >> 4, as_declared(RGB16 >> 4, 4095)),
    "PPM 65535": (pnm(b"P6", RGB16, 65535), RGB16, as_declared(RGB16, 65535)),
    "PPM 4095 as text": (pnm(b"P3", RGB16 >> 4, 4095), RGB16 >> 4, as_declared(RGB16 >> 4, 4095)),
    "PFM": (pillow(UNIT, "PPM"), UNIT, as_declared(UNIT, 1)),
    "GIF": (palette("GIF"), PALETTE[INDEX]),
    "GIF with transparency": (palette("GIF", transparency=3), PALETTE[INDEX]),
    "GIF that moves": (
        palette("GIF", save_all=True, append_images=[PIL.Image.fromarray(GREY)]),
        PALETTE[INDEX],
    ),
    "BMP 1": (pillow(BITS, "BMP", "1"), BITS),
    "BMP L": (pillow(GREY, "BMP"), GREY),
    "BMP P": (palette("BMP"), PALETTE[INDEX]),
    "BMP RGB": (pillow(RGB, "BMP"), RGB),
    "BMP RGBA": (cv2.imencode(".bmp", with_alpha()[..., [2, 1, 0, 3]])[1].tobytes(), RGB),
    "WebP RGB": (pillow(RGB, "WEBP", lossless=True), RGB),
    "WebP RGBA": (pillow(with_alpha(), "WEBP", lossless=True, exact=True), RGB),
    "JPEG 2000 L": (if_written(pillow, GREY, "JPEG2000"), GREY),
    "JPEG 2000 LA": (if_written(encode, grey_and_alpha(), "JPEG2000"), GREY),
    "JPEG 2000 RGB": (if_written(pillow, RGB, "JPEG2000"), RGB),
    "JPEG 2000 RGBA": (if_written(pillow, with_alpha(), "JPEG2000"), RGB),
    "JPEG 2000 I;16": (if_written(pillow, GREY16, "JPEG2000"), GREY16, upper_eight(GREY16)),
}
# What older versions, down to the lowest that are supported, refuse to read.
HAS_AVIF = "AVIF" in PIL.Image.registered_extensions().values()
TOO_NEW = {
    "TIFF uint32": int(cv2.__version__.split(".")[0]) < 5,
    "TIFF YCbCr": int(PIL.__version__.split(".")[0]) < 11,
    "AVIF of 10 bits": not HAS_AVIF,
}
FILES = {name: entry for name, entry in FILES.items() if entry[0] is not None and not TOO_NEW.get(name)}
# Of these the values are not known by hand: they are compressed with loss, or converted from other colours.
LOSSY = {
    "JPEG L": pillow(GREY, "JPEG"),
    "JPEG RGB": pillow(RGB, "JPEG"),
    "JPEG RGB 4:4:4": pillow(RGB, "JPEG", quality=60, subsampling="4:4:4"),
    "JPEG RGB progressive": pillow(RGB, "JPEG", progressive=True),
    "JPEG CMYK": pillow(RGB, "JPEG", "CMYK"),
    "TIFF CMYK": pillow(RGB, "TIFF", "CMYK"),
    "TIFF YCbCr": pillow(RGB, "TIFF", "YCbCr"),
    "TIFF JPEG": pillow(RGB, "TIFF", compression="jpeg"),
    "WebP": pillow(RGB, "WEBP", quality=80),
    "WebP with alpha": pillow(with_alpha(), "WEBP", quality=80),
    "JPEG 2000 CMYK": if_written(pillow, RGB, "JPEG2000", "CMYK"),
    "JPEG 2000 YCbCr": if_written(pillow, RGB, "JPEG2000", "YCbCr"),
    "JPEG 2000 RGB of 16 bits": if_written(opencv, ".jp2", SMOOTH16),
    "AVIF": if_written(pillow, RGB, "AVIF"),
    "AVIF with alpha": if_written(pillow, with_alpha(), "AVIF"),
    "AVIF of 10 bits": if_written(opencv, ".avif", SMOOTH16 >> 6, cv2.IMWRITE_AVIF_DEPTH, 10),
}
LOSSY = {name: data for name, data in LOSSY.items() if data is not None and not TOO_NEW.get(name)}
# What Pillow decodes to 8 bits, or to other values: once it is decoded, the file's own are lost.
LOST_WHEN_DECODED = {
    "PGM 1023",
    "PGM 4095",
    "PGM 4095 as text",
    "TIFF of 12 packed bits",
    "TIFF int8",
    "TIFF uint32",
    "TIFF RGB multiplied by alpha",
    "JPEG 2000 RGB of 16 bits",
}


def every_source(data, path):
    """Yield a file in each way that it may be given, with a name for it."""
    path.write_bytes(data)
    yield "path", path
    yield "str", str(path)
    yield "bytes", data
    yield "PIL image of bytes", PIL.Image.open(io.BytesIO(data))
    with PIL.Image.open(path) as picture:
        yield "PIL image of a path", picture
        yield "the same one again", picture


def repeated(values):
    values = np.asarray(values)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


@pytest.mark.parametrize("name", FILES)
def test_path_bytes_and_pil_image_give_the_files_own_values_and_the_same_pixels(tmp_path, name):
    data, values, pixels = (*FILES[name], None)[:3]
    pixels = values if pixels is None else pixels
    for way, source in every_source(data, tmp_path / "file"):
        np.testing.assert_array_equal(read_values(source), repeated(values), err_msg=way)
        if isinstance(pixels, str):
            with pytest.raises(ValueError, match=r"`source` must hold .* Received: .*limits=\(low, high\)"):
                load_image(source)
            continue
        loaded = load_image(source)
        assert loaded.dtype == np.uint8
        np.testing.assert_array_equal(loaded, repeated(pixels), err_msg=way)


@pytest.mark.parametrize("name", LOSSY)
def test_path_bytes_and_pil_image_give_the_same_pixels_of_other_colours(tmp_path, name):
    original = upper_eight(SMOOTH16) if "bits" in name else RGB[..., 1] if name == "JPEG L" else RGB
    expected = load_image(LOSSY[name])
    assert np.abs(expected.astype(float) - repeated(original)).mean() < (12 if "alpha" in name else 6)
    for way, source in every_source(LOSSY[name], tmp_path / "file"):
        np.testing.assert_array_equal(load_image(source), expected, err_msg=way)
        scale = 256 if read_values(source).dtype == np.uint16 else 1
        np.testing.assert_array_equal(read_values(source) // scale, expected, err_msg=way)


@pytest.mark.parametrize("name", [name for name in (*FILES, *LOSSY) if name not in LOST_WHEN_DECODED])
def test_a_pil_image_that_is_decoded_gives_the_same_pixels_too(name):
    data = FILES[name][0] if name in FILES else LOSSY[name]
    picture = PIL.Image.open(io.BytesIO(data))
    picture.load()
    answers = []
    for source in (data, picture, picture.copy()):
        try:
            answers.append(load_image(source))
        except ValueError as error:
            answers.append("window" in str(error))
    np.testing.assert_array_equal(answers[1], answers[0])
    if not name.startswith("PGM"):  # A copy has no format, which tells that its numbers are of 16 bits.
        np.testing.assert_array_equal(answers[2], answers[0])


# Precision and orientation


def test_a_jpeg_2000_of_12_bits_declares_its_maximum():
    # The number of bits is in the header alone, and the values lie about the middle of its range.
    data = bytearray(pillow((GREY12 + (2**15 - 2**11)).astype(np.uint16), "JPEG2000", no_jp2=True))
    assert data[42] == 16 - 1
    data[42] = 12 - 1
    np.testing.assert_array_equal(read_values(bytes(data)), repeated(GREY12))
    np.testing.assert_array_equal(load_image(bytes(data)), repeated(as_declared(GREY12, 4095)))


TURNED = {
    1: lambda values: values,
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


TIFFS = {
    "TIFF L": GREY,
    "TIFF RGB": RGB,
    "TIFF RGBA": with_alpha(),
    "TIFF int16": SIGNED16,
    "TIFF I;16": GREY16,
    "TIFF float": UNIT,
    "TIFF RGB of 16 bits": RGB16,
}


def turned_file(kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    if kind == "PNG of 16 bits":
        return opencv_png_with(b"eXIf", exif.tobytes()[6:], RGB16)
    if kind == "PNG with XMP":
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="%d"/>' % orientation
        return opencv_png_with(b"iTXt", text, RGB)
    if kind in TIFFS:
        return tiff(TIFFS[kind], orientation=orientation, extra=[2] if kind == "TIFF RGBA" else [])
    options = {"lossless": True} if kind == "WEBP" else {}
    return pillow(RGB, kind, exif=exif, **options)


def opencv_png_with(chunk, content, pixels):
    """A PNG with one more chunk, right after its header."""
    data = opencv(".png", pixels)
    added = struct.pack(">I", len(content)) + chunk + content + struct.pack(">I", zlib.crc32(chunk + content))
    return data[:33] + added + data[33:]


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(
    "kind",
    ["JPEG", "PNG", "PNG of 16 bits", "PNG with XMP", "WEBP", "AVIF", *TIFFS],
)
def test_every_orientation_is_turned_upright_alike(tmp_path, kind, orientation):
    if kind == "AVIF" and not HAS_AVIF:
        pytest.skip("this Pillow reads no AVIF")
    expected = TURNED[orientation](read_values(turned_file(kind, 1)))
    for way, source in every_source(turned_file(kind, orientation), tmp_path / "file"):
        values = read_values(source)
        assert values.shape == expected.shape
        if kind == "AVIF":  # compressed with loss
            assert np.abs(values.astype(int) - expected).mean() < 3
        else:
            np.testing.assert_array_equal(values, expected, err_msg=way)


def test_a_later_page_that_pillow_was_asked_for_is_the_one_that_is_read():
    pages = [PIL.Image.fromarray(page) for page in (GREY16, GREY12)]
    picture = PIL.Image.open(io.BytesIO(encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])))
    np.testing.assert_array_equal(read_values(picture), repeated(GREY16))
    picture.seek(1)
    np.testing.assert_array_equal(read_values(picture), repeated(GREY12))
    picture.seek(0)
    np.testing.assert_array_equal(read_values(picture), repeated(GREY16))


@pytest.mark.parametrize("name", ["PNG RGB", "TIFF RGB", "TIFF I;16", "BMP RGB", "GIF", "PGM 255"])
def test_pillow_closes_the_file_of_a_plain_image_as_ever(tmp_path, name):
    (tmp_path / "file").write_bytes(FILES[name][0])
    picture = PIL.Image.open(tmp_path / "file")
    file = picture.fp
    load_image(picture)
    assert file.closed or name == "GIF"  # which may go on
    picture.close()


def test_what_was_drawn_on_a_pil_image_is_seen():
    for data in (pillow(GREY16, "PNG"), pillow(RGB, "PNG"), tiff(GREY)):
        picture = PIL.Image.open(io.BytesIO(data))
        picture.paste(0, (0, 0, 10, 10))
        assert not load_image(picture)[:10, :10].any()


# Files that no decoder reads right


@pytest.mark.parametrize("samples", [2, 4, 5, 13])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_bands_that_are_no_colours_are_refused(samples, dtype):
    bands = np.ones((6, 7, samples), dtype)
    with pytest.raises(ValueError, match="`source` must be"):
        load_image(tiff(bands, photometric=1))


# Hostile files


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_decoded_beyond_the_limit(monkeypatch, tmp_path, name):
    monkeypatch.setattr("tf_gradcam._files.read.MAX_PIXELS", HEIGHT * WIDTH - 1)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(PIL.ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr("tf_gradcam._files.decode._decode_pnm", lambda *_: pytest.fail("decoded"))
    for _, source in every_source(FILES[name][0], tmp_path / "file"):
        with pytest.raises(ValueError, match=r"at most 1,359 pixels.*40 x 34"):
            load_image(source)


def test_a_pil_image_of_a_file_of_too_many_bytes_is_refused(monkeypatch):
    data = opencv(".png", RGB16)
    monkeypatch.setattr("tf_gradcam._files.read.MAX_BYTES", len(data) - 1)
    with pytest.raises(ValueError, match="its file has more than"):
        load_image(PIL.Image.open(io.BytesIO(data)))


# The first page of two, or the first frame, is whole.
@pytest.mark.parametrize("name", sorted(FILES.keys() - {"TIFF of two pages", "GIF that moves"}))
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
def test_a_file_that_is_cut_short_is_refused(name, part):
    data = FILES[name][0]
    with pytest.raises(ValueError, match=r"`source` must be .*Received: [0-9]+ bytes"):
        load_image(data[: int(part * len(data))])


def test_flipped_bytes_give_values_or_a_value_error(monkeypatch):
    monkeypatch.setattr("tf_gradcam._files.read.MAX_PIXELS", 100_000)
    random = np.random.default_rng(0)
    for data, *_ in FILES.values():
        for _ in range(15):
            flipped = np.frombuffer(data, np.uint8).copy()
            flipped[random.integers(0, min(len(data), 300), 3)] = random.integers(0, 256, 3)
            try:
                answer = f"`source` of shape {read_values(flipped.tobytes()).shape}"
            except ValueError as error:
                answer = str(error)
            assert answer.startswith("`source`")


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n4 4\n0\n" + bytes(16),
        b"P5\n4 4\n65536\n" + bytes(99),
        b"P5\n4 4\n255\n" + bytes(15),
        b"P5\n4 4\n256\n" + bytes(31),
        b"P2\n2 2\n255\n1 2 3\n",
        b"P2\n2 2\n255\n1 2 3 256\n",
        b"P2\n2 2\n255\n1 2 3 -1\n",
        b"P2\n2 2\n255\n1 2 x 4\n",
        b"P5\n99999999999999999999 4\n255\n",
        b"P5" + b" " * 100_000 + b"#" * 100_000,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_a_damaged_pnm_is_refused(data):
    with pytest.raises(ValueError, match="`source` must be"):
        load_image(data)
