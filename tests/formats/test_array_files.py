import dataclasses
import io
import itertools
import json
import pathlib
import pickle
import struct
import warnings
import zipfile
import zlib

import h5py
import keras
import numpy as np
import pyarrow.parquet
import pytest
import scipy.io
import zarr

import tf_gradcam
from tf_gradcam import formats
from tf_gradcam.formats._arrays import axes as array_axes
from tf_gradcam.formats._arrays.axes import LazyArray

NUMBERS = np.random.default_rng(0).integers(0, 4000, (5, 6, 40, 50)).astype(np.uint16)
ENDINGS = [".npy", ".npz", ".mat", ".h5", ".zarr2", ".zarr3"]


def save(folder, ending, array, name="array"):
    """Write an array with the format's own library; return the path."""
    path = folder / f"file{ending.rstrip('23')}"
    if ending == ".npy":
        np.save(path, array)
    elif ending == ".npz":
        np.savez_compressed(path, **{name: array})
    elif ending == ".mat":
        scipy.io.savemat(path, {name: array}, do_compression=True)
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset(name, data=array, chunks=True, compression="gzip")
    else:
        group = zarr.open_group(path, mode="w", zarr_format=int(ending[-1]))
        chunks = tuple(max(1, length // 3) for length in array.shape)
        group.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)[...] = array
    return path


def save_matlab_hdf5(path, **arrays):
    """Write a file as MATLAB's `save -v7.3` does: 512 bytes of its own, and the axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, (array, kind) in arrays.items():
            file.create_dataset(name, data=array.T, chunks=True).attrs["MATLAB_class"] = np.bytes_(kind)
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    return path


# Values and axes


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        *itertools.product(ENDINGS, ["<f4", ">u2"]),
        *itertools.product([".npy", ".npz", ".h5"], ["u1", "<u2", "<i8", ">f4", ">f8", "?", "<f2"]),
    ],
)
def test_values_are_exact_and_in_native_order(tmp_path, ending, dtype):
    array = NUMBERS[0].astype(dtype)
    scan = formats.read(save(tmp_path, ending, array), axes="zyx")
    assert scan.values.dtype == np.dtype(dtype).newbyteorder("=")
    assert scan.filled().dtype.isnative
    np.testing.assert_array_equal(scan.filled()[..., 0], array)
    assert scan.filled()[2:4, ::3].dtype.isnative
    assert (scan.affine, scan.times, scan.limits) == (None, None, None)


@pytest.mark.parametrize("ending", [".npy", ".mat", ".h5"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((40, 50), "yx"),
        ((40, 50, 3), "yxc"),
        ((40, 50, 32), "yxc"),
        ((3, 40, 50), "zyx"),
        ((3, 40, 33), "zyx"),
        ((6, 5, 4, 2), "zyxc"),
        ((2, 3, 4, 50), "tzyx"),
        ((2, 3, 4, 5, 6), "tzyxc"),
    ],
)
def test_axes_are_guessed_by_one_rule_and_shown(tmp_path, ending, shape, axes):
    array = np.random.default_rng(1).random(shape, np.float32)
    scan = formats.read(save(tmp_path, ending, array))
    if ending == ".mat":  # MATLAB has slices and frames last.
        axes = axes.replace("tzyx", "yxzt").replace("zyx", "yxz")
    assert scan.axes == "".join(letter for letter in "tzyx" if letter in axes)
    kept = scan.axes + "c"
    expected = array if "c" in axes else array[..., None]
    letters = axes if "c" in axes else axes + "c"
    expected = expected.transpose([letters.index(letter) for letter in kept])
    np.testing.assert_array_equal(scan.filled(), expected)
    name = {".npy": "NumPy", ".npz": "NumPy", ".mat": "MATLAB", ".h5": "HDF5"}.get(ending, "Zarr")
    shown = " x ".join(map(str, expected.shape))
    assert repr(scan) == f"Scan({name}, {shown} ({kept}), float32)"


@pytest.mark.parametrize("ending", [".npy", ".h5"])
def test_every_order_of_axes_is_turned_into_ours(tmp_path, ending):
    path = save(tmp_path, ending, NUMBERS[:3, :4, :5, :6])
    for letters in itertools.permutations("tzyxc", 4):
        axes = "".join(letters)
        if not {"y", "x"} <= set(axes):
            with pytest.raises(ValueError, match="`axes` must have a letter for each axis"):
                formats.read(path, axes=axes)
            continue
        scan = formats.read(path, axes=axes)
        kept = [letter for letter in "tzyxc" if letter in axes]
        expected = NUMBERS[:3, :4, :5, :6].transpose([axes.index(letter) for letter in kept])
        np.testing.assert_array_equal(scan.filled(), expected if "c" in axes else expected[..., None])


@pytest.mark.parametrize("ending", ENDINGS)
def test_axes_that_do_not_fit_are_refused(tmp_path, ending):
    path = save(tmp_path, ending, NUMBERS)
    for axes in ("yx", "yxzz", "cyyx", "tzyxc", "NCHW", ""):
        with pytest.raises(
            ValueError, match=r"`axes` must have a letter for each axis of .* of shape \(5, 6"
        ):
            formats.read(path, axes=axes)
    with pytest.raises(TypeError, match="`axes` must be a string or None"):
        formats.read(path, axes=3)


def test_five_axes_without_channels_must_be_named(tmp_path):
    path = save(tmp_path, ".npy", np.zeros((2, 3, 2, 4, 40), np.float32))
    with pytest.raises(ValueError, match="Received: axes=None"):
        formats.read(path)
    assert formats.read(path, axes="tczyx").shape == (2, 2, 4, 40, 3)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5), complex),
        np.zeros((0, 5)),
        np.zeros((4, 5), "M8[s]"),
        np.full((4, 5), "text"),
        np.arange(9.0),
    ],
    ids=["complex", "empty", "dates", "text", "a vector"],
)
def test_what_is_no_image_is_refused(tmp_path, ending, array):
    if array.dtype.kind == "M" and ending not in (".npy", ".npz"):
        array = array.astype("c16")
    if array.dtype.kind == "U" and ending == ".h5":
        array = array.astype("S4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Zarr's, of types without a standard
        path = save(tmp_path, ending, array)
        for options in ({}, {"name": "array"}) if ending != ".npy" else ({},):
            with pytest.raises(
                ValueError, match="must (hold|be) an array of real numbers with two axes or more"
            ):
                formats.read(path, **options)


def test_long_double_becomes_float64(tmp_path):
    path = save(tmp_path, ".npy", NUMBERS[0, 0].astype(np.longdouble))
    assert formats.read(path).filled().dtype == np.float64


# Names


@pytest.mark.parametrize("ending", [".npz", ".mat", ".h5", ".zarr2", ".zarr3"])
def test_an_array_is_found_by_name_or_is_the_first_image(tmp_path, ending):
    arrays = {"a_label": np.array([3]), "b_image": NUMBERS[0, 0], "c_mask": NUMBERS[0, 0] > 2000}
    path = tmp_path / f"file{ending.rstrip('23')}"
    if ending == ".npz":
        np.savez(path, **arrays)
    elif ending == ".mat":
        scipy.io.savemat(path, {**arrays, "text": "abc", "cell": {"a": 1.0}})
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[f"group/{name}"] = array
    else:
        group = zarr.open_group(path, mode="w", zarr_format=int(ending[-1]))
        for name, array in arrays.items():
            group.create_array(f"group/{name}", shape=array.shape, dtype=array.dtype)[...] = array
    prefix = "group/" if ending in (".h5", ".zarr2", ".zarr3") else ""
    np.testing.assert_array_equal(formats.read(path).filled()[..., 0], arrays["b_image"])
    mask = formats.read(path, name=f"{prefix}c_mask").filled()
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask[..., 0], arrays["c_mask"])
    if prefix:
        assert formats.read(path, name="/group/c_mask/").shape == (40, 50, 1)
    with pytest.raises(ValueError, match=f"`name` must be an array of .*Did you mean '{prefix}c_mask'"):
        formats.read(path, name=f"{prefix}cmask")
    with pytest.raises(ValueError, match="`name` must be an array of real numbers with two axes.*shape"):
        formats.read(path, name=f"{prefix}a_label")
    with pytest.raises(TypeError, match="`name` must be a string or None"):
        formats.read(path, name=2)


def test_a_file_of_one_array_takes_no_name(tmp_path):
    with pytest.raises(ValueError, match="`name` must be None for a .npy file"):
        formats.read(save(tmp_path, ".npy", NUMBERS), name="array")
    zarr.save_array(tmp_path / "one.zarr", NUMBERS)
    np.testing.assert_array_equal(formats.read(tmp_path / "one.zarr").filled()[..., 0], NUMBERS)
    with pytest.raises(ValueError, match="`name` must be None: the folder is one array"):
        formats.read(tmp_path / "one.zarr", name="array")


# Parts


def random_key(random, shape):
    """Return a random key of integers, slices with steps of both signs, and `...`."""
    key = []
    for length in shape:
        first, last = (random.choice([None, int(random.integers(-length - 2, length + 2))]) for _ in "ab")
        step = random.choice([None, 1, 2, 3, -1, -2])
        index = int(random.integers(-length, length))
        key.append([index, slice(None), slice(first, last, step)][random.integers(0, 3)])
    kept = int(random.integers(0, len(shape) + 1))
    dots = [..., *key[kept + int(random.integers(0, len(shape) - kept + 1)) :]]
    return (*key[:kept], *dots[random.integers(0, 2) * len(dots) :])


@pytest.mark.parametrize("ending", [".h5", ".zarr3", ".mat", ".npy"])
def test_a_part_is_that_of_the_whole_array(tmp_path, ending):
    random = np.random.default_rng(5)
    array = NUMBERS[:, :, :9, :11].astype(">i2")
    if ending == ".mat":
        path = save_matlab_hdf5(tmp_path / "file.mat", a=(array, "int16"))
    else:
        path = save(tmp_path, ending, array)
    lazy = formats.read(path, axes="xtyc").values
    expected = array.transpose(1, 2, 0, 3).astype(np.int16)
    assert isinstance(lazy, LazyArray)
    assert (lazy.shape, lazy.ndim, lazy.size, len(lazy)) == (expected.shape, 4, expected.size, 6)
    assert repr(lazy) == "LazyArray(shape=(6, 9, 5, 11), dtype=int16)"
    np.testing.assert_array_equal(np.asarray(lazy), expected)
    assert np.asarray(lazy, np.float32).dtype == np.float32
    for _ in range(12 if ending == ".zarr3" else 150):
        key = random_key(random, expected.shape)
        part = lazy[key]
        assert part.shape == expected[key].shape, key
        assert part.dtype == np.int16
        np.testing.assert_array_equal(part, expected[key], err_msg=str(key))
    np.testing.assert_array_equal(lazy[np.int64(2)], expected[2])
    for key in (6, -7, (0, 0, 0, 0, 0), (..., ...), [0, 1], None, True, 1.0, np.zeros(6, bool)):
        with pytest.raises(IndexError, match="`key` must"):
            lazy[key]
    with pytest.raises(ValueError, match="`copy`"):
        np.asarray(lazy, copy=False)


@pytest.mark.parametrize("ending", [".npy", ".h5", ".zarr3"])
def test_only_what_is_sliced_is_read(tmp_path, ending):
    path = tmp_path / f"large{ending.rstrip('3')}"
    shape, chunks = (40000, 600, 1000), (1, 300, 500)  # 48 GB
    if ending == ".npy":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": shape})
        with open(path, "wb") as file:
            file.write(header.getvalue())
            file.truncate(len(header.getvalue()) + 2 * 24 * 10**9)
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("a", shape, "<u2", chunks=chunks)
    else:
        zarr.create_array(path, shape=shape, dtype="u2", chunks=chunks)
    scan = formats.read(path)
    assert scan.shape == (*shape, 1)
    assert scan.values[-1, 100:200, ::50].shape == (100, 20, 1)
    assert scan.picture(index=3).shape == (600, 1000, 3)
    if ending != ".npy":
        with pytest.raises(ValueError, match="at most 4,294,967,296 bytes.*48,000,000,000 bytes. Slice it"):
            scan.filled()


def test_a_picture_is_made_of_what_it_shows(tmp_path):
    lazy = formats.read(save(tmp_path, ".h5", NUMBERS))
    volume = dataclasses.replace(lazy, values=NUMBERS[..., None])
    assert lazy.axes == "tzyx"
    with pytest.raises(IndexError):
        lazy.picture(index=5)
    np.testing.assert_array_equal(
        lazy.picture(index=2, limits=(0, 4000)), volume.picture(index=2, limits=(0, 4000))
    )


# MATLAB


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "?"])
def test_every_class_of_matlab_is_read_as_scipy_reads_it(tmp_path, kind, compressed):
    array = (np.arange(-7, 53).reshape(3, 4, 5) % 2**7).astype(kind)
    scipy.io.savemat(tmp_path / "a.mat", {"s": "text", "a": array, "b": array[0]}, do_compression=compressed)
    expected = scipy.io.loadmat(tmp_path / "a.mat")["a"]
    scan = formats.read(tmp_path / "a.mat", axes="yxz")
    assert scan.values.dtype == (np.bool_ if kind == "?" else expected.dtype)
    np.testing.assert_array_equal(scan.filled()[..., 0], expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(formats.read(tmp_path / "a.mat", name="b").filled()[..., 0], array[0])


@pytest.mark.parametrize("order", "<>")
def test_values_that_matlab_stored_smaller_have_their_own_class(tmp_path, order):
    """MATLAB stores doubles that are whole numbers as bytes, and its short parts in one word."""

    def element(kind, data):
        return struct.pack(f"{order}II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")

    flags = struct.pack(f"{order}II", 6, 0)
    name = struct.pack(f"{order}I", 1 << 16 | 1) + b"a\0\0\0"
    array = (
        element(6, flags) + element(5, struct.pack(f"{order}ii", 2, 3)) + name + element(2, bytes(range(6)))
    )
    mark = b"\0\1IM" if order == "<" else b"\1\0MI"
    start = b"MATLAB 5.0 MAT-file".ljust(124) + mark
    (tmp_path / "a.mat").write_bytes(start + element(14, array))
    values = formats.read(tmp_path / "a.mat").filled()
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values[..., 0], [[0, 2, 4], [1, 3, 5]])


def test_version_7_3_is_read_with_its_axes_in_matlabs_order(tmp_path):
    video = NUMBERS[0, :3].transpose(1, 2, 0)  # rows, columns, colours
    text = np.frombuffer("text".encode("utf-16le"), np.uint16)[None]
    path = save_matlab_hdf5(
        tmp_path / "a.mat",
        a_text=(text, "char"),
        b_number=(np.array([[2.5]]), "double"),
        c_image=(video, "uint16"),
        d_mask=((video[..., 0] > 2000).astype(np.uint8), "logical"),
    )
    scan = formats.read(path)
    assert (scan.format, scan.axes) == ("MATLAB", "yx")
    np.testing.assert_array_equal(scan.filled(), video)
    np.testing.assert_array_equal(formats.read(path, name="d_mask").filled()[..., 0], video[..., 0] > 2000)
    with pytest.raises(ValueError, match="MATLAB's class char"):
        formats.read(path, name="a_text")
    path = save_matlab_hdf5(tmp_path / "b.mat", a=(np.array([[0.0, 0], [0, 5]]), "double"))
    with h5py.File(path, "r+") as file:  # What is there is the shape of an empty array.
        file["a"].attrs["MATLAB_empty"] = np.uint8(1)
    with pytest.raises(ValueError, match="an empty array"):
        formats.read(path)


@pytest.mark.parametrize("name", ["sparse", "cell", "struct", "text"])
def test_other_classes_of_matlab_are_named(tmp_path, name):
    cell = np.empty((2, 2), object)
    cell[:] = 1.0
    others = {"sparse": scipy.sparse.eye_array(4).tocsc(), "cell": cell, "struct": {"a": 1.0}, "text": "abc"}
    scipy.io.savemat(tmp_path / "a.mat", {name: others[name]})
    with pytest.raises(ValueError, match=f"MATLAB's class {'char' if name == 'text' else name}"):
        formats.read(tmp_path / "a.mat")


def test_version_4_of_matlab_is_refused_with_advice(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"a": NUMBERS[0, 0].astype(float)}, format="4")
    with pytest.raises(ValueError, match="MATLAB's save -v7"):
        formats.read(tmp_path / "a.mat")


# Files that are damaged or hostile


class Evil:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("evil"),)


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_nothing_is_unpickled(tmp_path, ending, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.empty((2, 2), object)
    objects[:] = Evil()
    for data in (save(tmp_path, ending, objects).read_bytes(), pickle.dumps(objects)):
        (tmp_path / f"file{ending}").write_bytes(data)
        with pytest.raises(ValueError, match="`path` must"):
            formats.read(tmp_path / f"file{ending}")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_a_codec_that_unpickles_is_refused(tmp_path, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = zarr.create_array(tmp_path / "a.zarr", shape=(2, 2), dtype="<f8", zarr_format=2, compressors=None)
    array[:] = 1
    metadata = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    metadata[place] = (
        {"id": "pickle", "protocol": 5} if place == "compressor" else [{"id": "pickle", "protocol": 5}]
    )
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(metadata))
    (tmp_path / "a.zarr" / "0.0").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="pickled Python objects|complete file"):
        formats.read(tmp_path / "a.zarr")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("ending", [".npy", ".npz", ".mat", ".h5"])
def test_a_file_that_is_cut_off_is_refused(tmp_path, ending):
    path = save(tmp_path, ending, NUMBERS)
    data = path.read_bytes()
    for length in (0, 5, 60, 130, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="`path` must"):
            np.asarray(formats.read(path))


@pytest.mark.parametrize("ending", [".npz", ".mat", ".h5"])
def test_a_bit_that_changed_is_found_by_the_checksum(tmp_path, ending):
    path = save(tmp_path, ending, np.random.default_rng(0).random((60, 70)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match="`path` must be a complete"):
        np.asarray(formats.read(path))


def test_what_is_announced_is_compared_before_it_is_allocated(tmp_path, monkeypatch):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6, 10**6)}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue() + bytes(64))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(64))
    flags = struct.pack("<IIII", 6, 8, 6, 0)
    shape = struct.pack("<IIiii", 5, 12, 100, 100, 10) + bytes(4)
    array = (
        flags + shape + struct.pack("<II", 1, 1) + b"a".ljust(8, b"\0") + struct.pack("<II", 9, 8) + bytes(8)
    )
    matrix = struct.pack("<II", 14, len(array)) + array
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    (tmp_path / "a.mat").write_bytes(start + matrix)
    packed = zlib.compress(matrix)
    (tmp_path / "b.mat").write_bytes(start + struct.pack("<II", 15, len(packed)) + packed)
    for name, words in [
        ("a.npy", "complete NumPy file"),
        ("a.npz", "'a.npy' announces 8,000,000,000,000,000,000 bytes"),
        ("a.mat", "at most 100,000 bytes"),
        ("b.mat", "at most 100,000 bytes"),
    ]:
        if name == "a.mat":
            monkeypatch.setattr(array_axes, "MAX_BYTES", 100_000)
        with pytest.raises(ValueError, match=words):
            formats.read(tmp_path / name)
    for ending in (".npz", ".mat"):
        with pytest.raises(ValueError, match="at most 100,000 bytes to be read at once.*120,000 bytes. Save"):
            formats.read(save(tmp_path, ending, NUMBERS))


def test_a_compressed_array_longer_than_it_announces_is_not_decompressed(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"a": np.zeros((30, 30))})
    data = (tmp_path / "a.mat").read_bytes()
    packed = zlib.compress(data[128:] + bytes(10**7))
    (tmp_path / "a.mat").write_bytes(data[:128] + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(ValueError, match="cut off, or longer than it announces"):
        formats.read(tmp_path / "a.mat")


def test_chunks_are_compared_with_the_limit(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (400, 400), "u2", chunks=(400, 400))
    zarr.create_array(tmp_path / "a.zarr", shape=(400, 400), dtype="u2", chunks=(100, 100), shards=(400, 400))
    monkeypatch.setattr(array_axes, "MAX_BYTES", 100_000)
    for name in ("a.h5", "a.zarr"):
        with pytest.raises(
            ValueError, match="at most 100,000 bytes.*320,000 bytes. Its chunks are too large"
        ):
            formats.read(tmp_path / name)


def test_values_in_other_files_must_be_there(tmp_path):
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["a"] = NUMBERS[0, 0]
    layout = h5py.VirtualLayout((40, 50), "u2")
    layout[:] = h5py.VirtualSource("part.h5", "a", (40, 50))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("a", layout)
    np.testing.assert_array_equal(formats.read(tmp_path / "all.h5").filled()[..., 0], NUMBERS[0, 0])
    (tmp_path / "part.h5").unlink()
    with h5py.File(tmp_path / "all.h5") as file:
        assert not file["a"][...].any()  # HDF5 fills in, and says nothing.
    with pytest.raises(ValueError, match="'part.h5', which isn't there"):
        formats.read(tmp_path / "all.h5")
    (tmp_path / "secret").write_bytes(bytes(80))
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("a", (8, 10), "u1", external=[(str(tmp_path / "secret"), 0, 80)])
    with pytest.raises(ValueError, match="raw files outside of it"):
        formats.read(tmp_path / "raw.h5")


def test_a_missing_filter_and_a_damaged_chunk_are_sentences(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", (40, 50), "u2", chunks=(20, 50), compression="gzip")
        dataset[:] = NUMBERS[0, 0]
        first, second = (dataset.id.get_chunk_info(index).byte_offset for index in range(2))
    data = bytearray((tmp_path / "a.h5").read_bytes())
    for offset, words in ((second, "a part of the array can't be read"), (first, "pip install hdf5plugin")):
        data[offset + 20 : offset + 200] = bytes(180)
        (tmp_path / "a.h5").write_bytes(data)
        with pytest.raises(ValueError, match=words):
            np.asarray(formats.read(tmp_path / "a.h5"))
    scan = formats.read(save(tmp_path, ".zarr3", NUMBERS[0, 0]))
    for chunk in (tmp_path / "file.zarr" / "array" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="'file.zarr', where a part of the array can't be read"):
        scan.filled()


@pytest.mark.parametrize("ending", [".npy", ".npz", ".mat", ".h5", ".zarr"])
def test_a_file_of_another_format_or_a_folder_is_refused(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes(b"GIF89a" * 200)
    (tmp_path / f"b{ending}").mkdir()
    for name in "ab":
        with pytest.raises(ValueError, match="`path` must"):
            formats.read(tmp_path / f"{name}{ending}")


# Writing


PLACED = formats.Scan(
    values=np.zeros((4, 6, 8, 1), np.uint8),
    axes="zyx",
    format="NIfTI",
    path=pathlib.Path("/secret/folder/mri.nii"),
    affine=np.array([[0, 0, 2.0, 1], [0, 3.0, 0, 2], [4.0, 0, 0, 3]]),
    space="RAS mm",
)
HEATMAP = np.random.default_rng(0).random((2, 3, 8))
AFFINE = [[0, 0, 2, 1], [0, 6, 0, 3.5], [8, 0, 0, 5]]  # of cells of 2 x 2 x 1 voxels


def test_an_array_is_written_as_float32(tmp_path):
    formats.write(tmp_path / "a.npy", PLACED, HEATMAP, label="lesion")
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, HEATMAP.astype(np.float32))
    formats.write(tmp_path / "a.npz", PLACED, HEATMAP, label="Läsion", model="m", method="layercam")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["heatmap"], HEATMAP.astype(np.float32))
        np.testing.assert_allclose(found["affine"], AFFINE)
        texts = {name: str(found[name]) for name in found.files if name not in ("heatmap", "affine")}
    assert texts == {"axes": "zyx", "space": "RAS mm", "method": "layercam", "label": "Läsion", "model": "m"}
    formats.write(tmp_path / "b.npz", dataclasses.replace(PLACED, affine=None), HEATMAP)
    assert set(np.load(tmp_path / "b.npz").files) == {"heatmap", "axes", "method", "label", "model"}


def test_parquet_holds_one_row_and_its_place(tmp_path):
    formats.write(tmp_path / "a.parquet", PLACED, HEATMAP, label="Läsion", model="m", method="layercam")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    (row,) = table.to_pylist()
    heatmap = np.array(row.pop("heatmap"), np.float32).reshape(row["shape"])
    np.testing.assert_array_equal(heatmap, HEATMAP.astype(np.float32))
    expected = {"file": "mri.nii", "method": "layercam", "label": "Läsion", "model": "m", "shape": [2, 3, 8]}
    assert row == expected
    assert str(table.schema.field("heatmap").type) == "list<element: float>"
    place = json.loads(table.schema.metadata[b"tf_gradcam"])
    np.testing.assert_allclose(place.pop("affine"), AFFINE)
    assert place == {"axes": "zyx", "space": "RAS mm", "spacing": [8.0, 6.0, 2.0]}
    assert b"secret" not in (tmp_path / "a.parquet").read_bytes()


def test_the_axis_of_time_is_no_part_of_a_place(tmp_path):
    scan = dataclasses.replace(PLACED, values=np.zeros((5, 4, 6, 8, 1)), axes="tzyx")
    formats.write(tmp_path / "a.npz", scan, np.ones((5, 2, 3, 8)))
    np.testing.assert_allclose(np.load(tmp_path / "a.npz")["affine"], AFFINE)
    formats.write(tmp_path / "a.parquet", scan, np.ones((5, 2, 3, 8)))
    place = json.loads(pyarrow.parquet.read_schema(tmp_path / "a.parquet").metadata[b"tf_gradcam"])
    np.testing.assert_allclose(place["affine"], AFFINE)


# The whole way


def test_a_network_sees_a_lazy_array_as_it_sees_the_array_itself(tmp_path):
    bands = np.random.default_rng(0).random((13, 24, 32), np.float32)
    bands[4, 6:9, 20:23] = 50
    model = keras.Sequential(
        [
            keras.Input((24, 32, 13)),
            keras.layers.Conv2D(1, 3, padding="same", kernel_initializer="ones", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, kernel_initializer="ones"),
        ]
    )
    expected = tf_gradcam.make_gradcam_heatmap(model, bands.transpose(1, 2, 0), "conv")
    for ending in (".h5", ".zarr3", ".npy"):
        scan = formats.read(save(tmp_path, ending, bands), axes="cyx")
        heatmap = tf_gradcam.make_gradcam_heatmap(model, scan, "conv")
        np.testing.assert_array_equal(heatmap, expected)
        formats.write(tmp_path / "heatmap.npy", scan, heatmap)
        found = np.load(tmp_path / "heatmap.npy")
        assert np.unravel_index(found.argmax(), found.shape) == (7, 21)
