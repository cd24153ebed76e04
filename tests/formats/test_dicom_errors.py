"""DICOM files that can't be read: every one gives a sentence, and none names the patient."""

import struct
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from dicom_files import PATIENT, make_ct, make_enhanced, save, shipped
from pydicom.uid import DeflatedExplicitVRLittleEndian

from tf_gradcam import formats

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)


def refusal(path, **options):
    """Return the sentence with which a file is refused, on one line and without the patient."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - The callers look at what it says.
        formats.read(path, **options)
    said = str(caught.value)
    assert said.startswith("`path` must be ")
    assert "Received: '" in said
    assert PATIENT.split("^")[0] not in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtplan.dcm", "holds none: its kind is RT Plan Storage"),
        ("dicomdirtests/DICOMDIR", "its kind is Media Storage Directory Storage"),
        ("nested_priv_SQ.dcm", "its kind is unknown"),
        ("rtstruct.dcm", "RT Structure Set Storage"),
        ("reportsi.dcm", "Basic Text SR Storage"),
        ("waveform_ecg.dcm", "12-lead ECG Waveform Storage"),
        ("MR_truncated.dcm", "pixels can't be decoded: truncated"),
        ("JPEG-lossy.dcm", "can't be decoded"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", "which holds one of 1024 x 3722445056: damaged"),
        ("badVR.dcm", "NumberOfFrames is no number"),
    ],
)
def test_shipped_files_without_a_sound_image_are_refused(name, message):
    assert message in refusal(shipped(name))


def test_a_file_without_its_pixels_or_of_another_format_is_refused(tmp_path):
    dataset = make_ct(PIXELS)
    del dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm")
    assert "which holds no pixels" in refusal(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(b"\x30\x82" + bytes(300))  # as an encrypted one starts
    assert "encrypted" in refusal(tmp_path / "b.dcm")
    (tmp_path / "c.dcm").write_bytes(b"")
    assert "doesn't start as one" in refusal(tmp_path / "c.dcm")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"Rows": 9}, "truncated"),
        ({"Rows": 0}, "Rows is no whole number from 1"),
        ({"NumberOfFrames": 2, "FrameTime": 40}, "truncated"),
        ({"NumberOfFrames": 10**8}, r"announces 6,400,000,000. Give one of its frames"),
        ({"PhotometricInterpretation": "CMYK"}, "samples of CMYK"),
        ({"PhotometricInterpretation": None}, "no photometric interpretation"),
        ({"SamplesPerPixel": 3}, "3 samples of MONOCHROME2"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette is missing"),
        ({"BitsStored": 17}, "17"),
        ({"BitsStored": None}, "0 bits stored in 16"),
        ({"BitsAllocated": 12}, "12"),
        ({"HighBit": 11}, "high bit 11, which is retired"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(tmp_path, attributes, message):
    made = make_ct(PIXELS, **attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(tmp_path / "a.dcm")
    assert message in refusal(tmp_path / "a.dcm")


def test_a_damaged_table_is_refused(tmp_path):
    dataset = make_ct(PIXELS, ModalityLUTSequence=[make_ct(PIXELS)])
    dataset.save_as(tmp_path / "a.dcm")
    assert "lookup table is damaged" in refusal(tmp_path / "a.dcm")


def test_a_deflated_file_that_grows_too_large_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    from tf_gradcam.formats._dicom import datasets

    monkeypatch.setattr(datasets, "_MAX_INFLATED", 2**20)
    dataset = make_ct(np.zeros((1024, 1024), np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm")
    assert (tmp_path / "a.dcm").stat().st_size < 50_000
    assert "inflates to more" in refusal(tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    (length,) = struct.unpack_from("<I", data, 140)
    assert zlib.decompress(data[144 + length :], -15)  # The test finds the stream where the reader does.
    (tmp_path / "b.dcm").write_bytes(data[: 144 + length] + b"\xff" * 100)
    assert "can't be inflated" in refusal(tmp_path / "b.dcm")


def test_a_video_stream_and_an_unknown_syntax_are_refused(tmp_path):
    dataset = pydicom.dcmread(shipped("SC_rgb_jpeg_gdcm.dcm"))
    for uid, message in (
        ("1.2.840.10008.1.2.4.102", "a video stream, MPEG-4 .* Extract it as .mp4"),
        ("1.2.3.4", "of an unknown transfer syntax"),
    ):
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.save_as(tmp_path / "a.dcm", enforce_file_format=False)
        with pytest.raises(ValueError, match=message):
            formats.read(tmp_path / "a.dcm")


def test_a_missing_decoder_is_named_with_its_extra(monkeypatch):
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGLSNearLossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(ImportError, match=r'JPEG-LS.*pip install "tf_gradcam\[dicom\]"'):
        formats.read(shipped("JPEGLSNearLossless_08.dcm"))


def test_a_stream_of_another_size_and_missing_frames_are_refused(tmp_path):
    dataset = pydicom.dcmread(shipped("SC_rgb_jpeg_gdcm.dcm"))
    dataset.Rows = 50
    dataset.save_as(tmp_path / "a.dcm")
    assert "an image of 50 x 100 pixels, as it says" in refusal(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(shipped("SC_rgb_rle_2frame.dcm"))
    dataset.NumberOfFrames = 3
    dataset.save_as(tmp_path / "b.dcm")
    assert "3 frames" in refusal(tmp_path / "b.dcm")


DAMAGED = [
    "CT_small.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "MR_small_bigendian.dcm",
]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_cut_short_anywhere_is_refused(name, tmp_path):
    data = shipped(name).read_bytes()
    dataset = pydicom.dcmread(shipped(name))
    last = data.rindex(dataset.PixelData[-200:-100])  # What follows the pixels may be missing.
    path = tmp_path / "cut.dcm"
    for length in np.linspace(0, last, 24, dtype=int):
        path.write_bytes(data[:length])
        refusal(path)


@pytest.mark.parametrize("name", DAMAGED)
def test_flipped_bytes_of_a_header_never_raise_anything_but_sentences(name, tmp_path):
    data = bytearray(shipped(name).read_bytes())
    rng = np.random.default_rng(1)
    end = bytes(data).rindex(b"\xe0\x7f\x10\x00" if "bigendian" not in name else b"\x7f\xe0\x00\x10")
    path = tmp_path / "flipped.dcm"
    for _ in range(40):
        damaged = data.copy()
        for at in rng.integers(128, end, 3):
            damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            formats.read(path).picture()
        except ValueError as error:
            assert str(error).startswith("`path` must be ")  # noqa: PT017


def test_damaged_frames_of_an_enhanced_file_are_refused(tmp_path):
    volume = np.stack([PIXELS] * 3)
    dataset = make_enhanced(volume, range(3))
    dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence = []
    dataset.save_as(tmp_path / "a.dcm")
    scan = formats.read(tmp_path / "a.dcm")
    assert (scan.axes, scan.affine) == ("zyx", None)  # One place is unknown, thus that of the volume is.
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:2]
    dataset.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0].RescaleSlope = 0
    dataset.save_as(tmp_path / "b.dcm")
    assert "rescale slope is 0" in refusal(tmp_path / "b.dcm")


def test_a_folder_passes_over_what_only_looks_like_a_dicom_file(tmp_path):
    save(tmp_path / "a.dcm", PIXELS)
    (tmp_path / "noise.bin").write_bytes(b"\x08\x00" + bytes(range(256)) * 4)
    assert formats.read(tmp_path).shape == (8, 8, 1)
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:400])
    assert formats.read(tmp_path).shape == (8, 8, 1)
