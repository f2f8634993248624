"""Every kind of image file to grey, and every broken one refused."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from htr_ray.corpus.images import as_grey_file, decode_grey, encode_png

GREY = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (20, 1))


def _file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


@given(st.integers(1, 40), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_png_round_trip(height: int, width: int, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    assert np.array_equal(decode_grey(encode_png(array)), array)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG", "JPEG2000"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_formats(kind: str, mode: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98}}.get(kind, {})
    got = decode_grey(_file(Image.fromarray(GREY).convert(mode), kind, **options))
    assert got.dtype == np.uint8 and got.shape == GREY.shape
    assert np.abs(got.astype(int) - GREY).max() <= 3


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparency_is_white_paper(mode: str) -> None:
    image = Image.fromarray(np.zeros((10, 30), np.uint8)).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.repeat([[0, 255]], 10, 0), 15, 1).astype(np.uint8)))
    got = decode_grey(_file(image.convert(mode), "TIFF" if mode == "PA" else "PNG"))
    assert got.shape == (10, 30)
    assert (got[:, :15] == 255).all() and (got[:, 15:] < 5).all()


def test_palette_and_one_bit() -> None:
    assert np.abs(decode_grey(_file(Image.fromarray(GREY).convert("P"))).astype(int) - GREY).max() <= 3
    bits = (GREY > 100).astype(np.uint8) * 255
    assert np.array_equal(decode_grey(_file(Image.fromarray(bits).convert("1"))), bits)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits(kind: str) -> None:
    data = cv2.imencode(f".{kind}", GREY.astype(np.uint16) * 257)[1].tobytes()
    assert np.array_equal(decode_grey(data), GREY)


def test_dark_sixteen_bits_stay_dark() -> None:
    data = cv2.imencode(".png", np.full((4, 4), 200, np.uint16))[1].tobytes()
    assert (decode_grey(data) <= 1).all()


def test_float_tiff() -> None:
    got = decode_grey(_file(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"))
    assert np.array_equal(got, GREY)
    with pytest.raises(ValueError, match="out of range"):
        decode_grey(_file(Image.fromarray(np.full((3, 3), np.nan, np.float32)), "TIFF"))


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise by 90 degrees to show
    data = _file(Image.fromarray(GREY), "JPEG", exif=exif, quality=98)
    got = decode_grey(data)
    assert got.shape == GREY.shape[::-1]
    assert np.abs(got.astype(int) - np.rot90(GREY, -1)).max() <= 3
    kept, width, height = as_grey_file(data)
    assert kept != data and (width, height) == got.shape[::-1]


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_shown_as_pillow_shows_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _file(Image.fromarray(GREY), exif=exif)
    assert np.array_equal(decode_grey(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_other_exif_may_be_damaged() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    data = _file(Image.fromarray(GREY), "JPEG", exif=exif, quality=98)
    resolution = data.index(b"\x01\x1a\x00\x05")
    damaged = data[: resolution + 3] + b"\x02" + data[resolution + 4 :]  # a text where a number belongs
    with pytest.raises(TypeError):  # else this tests nothing
        ImageOps.exif_transpose(Image.open(io.BytesIO(damaged)))
    assert np.array_equal(decode_grey(damaged), decode_grey(data))
    assert as_grey_file(damaged)[1:] == GREY.shape


def test_grey_files_are_kept_byte_for_byte() -> None:
    for kind in ("PNG", "JPEG"):
        data = _file(Image.fromarray(GREY), kind)
        assert as_grey_file(data) == (data, 60, 20)


def test_others_become_grey_png() -> None:
    for image, kind in ((Image.fromarray(GREY).convert("RGB"), "PNG"), (Image.fromarray(GREY), "TIFF")):
        data = _file(image, kind)
        kept, width, height = as_grey_file(data)
        assert kept.startswith(b"\x89PNG") and (width, height) == (60, 20)
        assert np.array_equal(decode_grey(kept), GREY)


@pytest.mark.parametrize("function", [decode_grey, as_grey_file])
def test_broken_files(function: object) -> None:
    assert callable(function)
    cases = ((b"", "empty file"), (b"hello", "not an image"), (b"\xff\xd8\xff\xd9", "not an image"))
    for data, reason in cases:
        with pytest.raises(ValueError, match=reason):
            function(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_files(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 200), dtype=np.uint8)
    data = _file(Image.fromarray(noise), kind)
    for function in (decode_grey, as_grey_file):
        with pytest.raises(ValueError, match="corrupt image|not an image"):
            function(data[: int(len(data) * share)])


def test_zero_size_and_enormous_images() -> None:
    header = bytearray(_file(Image.fromarray(GREY)))
    for width, reason in ((0, "not an image|zero-size|corrupt"), (2_000_000_000, "too large|not an image")):
        header[16:20] = width.to_bytes(4, "big")
        header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
        with pytest.raises(ValueError, match=reason):
            decode_grey(bytes(header))


def test_encode_png_refuses_other_arrays() -> None:
    for array in (np.zeros((0, 5), np.uint8), np.zeros((5, 5)), np.zeros((5, 5, 3), np.uint8)):
        with pytest.raises(ValueError, match="non-empty uint8"):
            encode_png(array)


def test_real_lines_decode_as_pillow_does(handwriting: object) -> None:
    table = pq.ParquetFile(f"{handwriting}/lines/testaments.parquet").read_row_group(0, columns=["image"])
    for row in table["image"].to_pylist()[:50]:
        data = row["bytes"]
        assert np.array_equal(decode_grey(data), np.asarray(Image.open(io.BytesIO(data))))
        assert as_grey_file(data)[0] == data
