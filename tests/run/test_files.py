"""Files are whole or not there, and a picture says that this library wrote it."""

import errno
import os
import pathlib

import cv2
import numpy as np
import PIL.Image
import pytest

from tf_gradcam._checks import is_disk_full
from tf_gradcam._files import write_file
from tf_gradcam._run.files import is_own_picture, may_write, write_picture


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full when a file is given its name."""

    def refuse(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)


def test_a_file_replaces_another_and_nothing_is_left_beside_it():
    for data in (b"old", b"new"):
        write_file("a.bin", data)
        assert pathlib.Path("a.bin").read_bytes() == data
    assert os.listdir() == ["a.bin"]
    plain = pathlib.Path("plain")
    plain.touch()
    assert pathlib.Path("a.bin").stat().st_mode == plain.stat().st_mode


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_file_that_was_there_and_names_it():
    pathlib.Path("a.bin").write_bytes(b"old")
    with pytest.raises(OSError, match=r"No space left on device: 'a\.bin'") as raised:
        write_file("a.bin", b"new")
    assert is_disk_full(raised.value)
    assert pathlib.Path("a.bin").read_bytes() == b"old"
    assert os.listdir() == ["a.bin"]


def test_an_interrupt_leaves_no_half_file(monkeypatch):
    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file("a.bin", b"new")
    assert os.listdir() == []


def test_other_errors_name_the_file_too():
    with pytest.raises(FileNotFoundError, match="'none/a.bin'") as raised:
        write_file("none/a.bin", b"")
    assert not is_disk_full(raised.value)
    os.mkdir("folder")
    with pytest.raises(OSError, match="'folder'"):
        write_file("folder", b"")
    assert os.listdir() == ["folder"]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_says_who_wrote_it_and_shows_the_same(ending):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    encoded = cv2.imencode(f".{ending}", pixels)[1].tobytes()
    pathlib.Path(f"other.{ending}").write_bytes(encoded)
    write_picture(f"own.{ending}", encoded)
    assert (is_own_picture(f"own.{ending}"), is_own_picture(f"other.{ending}")) == (True, False)
    own, other = (cv2.imread(f"{name}.{ending}") for name in ("own", "other"))
    np.testing.assert_array_equal(own, other)
    with PIL.Image.open(f"own.{ending}") as picture:
        picture.load()
        assert "tf_gradcam" in str(picture.info)
    assert (may_write(f"own.{ending}"), may_write(f"other.{ending}")) == (True, False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_no_picture_of_ours_and_is_not_replaced():
    os.mkfifo("pipe.png")
    os.mkdir("folder.png")
    os.symlink("nowhere", "broken.png")
    for name in ("pipe.png", "folder.png", "broken.png"):
        assert not is_own_picture(name)
        assert not may_write(name)
    assert may_write("free.png")
