"""The short cut by a file's header: the pixels and the verdict of Pillow, for whole files and damaged ones."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from htr_ray.corpus import images
from htr_ray.corpus.headers import Header, plain_header
from htr_ray.corpus.images import as_grey_file, decode_grey

_RNG = np.random.default_rng(5)
_INK = np.clip(0.8 + np.cumsum(_RNG.normal(0, 0.05, (90, 301)), 1), 0.1, 1)[..., None]
PAGE = np.clip(_INK * [225, 212, 180] + _RNG.normal(0, 3, (90, 301, 3)), 0, 255).astype(np.uint8)
KINDS = {
    "grey JPEG": ("L", "JPEG", {}),
    "JPEG in intervals": ("L", "JPEG", {"restart_marker_blocks": 3}),
    "colour JPEG": ("RGB", "JPEG", {"quality": 90}),
    "colour JPEG 4:4:4": ("RGB", "JPEG", {"subsampling": 0}),
    "grey PNG": ("L", "PNG", {}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
    "RGB inside JPEG": ("RGB", "JPEG", {"keep_rgb": True}),
    "one-bit PNG": ("1", "PNG", {}),
    "PNG with alpha": ("LA", "PNG", {}),
    "colour PNG": ("RGB", "PNG", {}),
}
PLAIN = list(KINDS)[:5]


def _file(kind: str) -> bytes:
    mode, format, options = KINDS[kind]
    sink = io.BytesIO()
    Image.fromarray(PAGE).convert(mode).save(sink, format, **options)
    return sink.getvalue()


def _by_pillow(data: bytes) -> np.ndarray:
    return images._grey(images._open(data))


def _verdict(function: object, data: bytes) -> str:
    try:
        function(data)  # type: ignore[operator]
    except ValueError as error:
        return str(error)
    return "whole"


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_pixels(kind: str) -> None:
    data = _file(kind)
    channels = 1 if KINDS[kind][0] == "L" else 3
    expected = Header(KINDS[kind][1], 301, 90, channels) if kind in PLAIN else None
    assert plain_header(data) == expected
    got = decode_grey(data)
    assert np.array_equal(got, _by_pillow(data))
    kept, width, height = as_grey_file(data)
    assert (width, height) == (301, 90) and np.array_equal(decode_grey(kept), got)
    assert (kept == data) == (KINDS[kind][0] == "L")


@pytest.mark.parametrize("kind", ["colour JPEG", "colour JPEG 4:4:4", "progressive JPEG", "RGB inside JPEG"])
def test_luminance_as_stored_is_the_grey_of_the_colours(kind: str) -> None:
    """Red, green and blue and back again would round three times, and cut off what is brighter than white."""
    _is_faithful(_file(kind))


def test_luminance_of_real_pages(handwriting: Path) -> None:
    pages = sorted((handwriting / "pages").rglob("*.jpg"))
    assert len(pages) >= 4
    for page in pages[:4]:
        _is_faithful(page.read_bytes())


def _is_faithful(data: bytes) -> None:
    there_and_back = np.asarray(Image.open(io.BytesIO(data)).convert("L")).astype(int)
    apart = np.abs(decode_grey(data) - there_and_back)
    assert apart.mean() < 0.5 and np.quantile(apart, 0.999) <= 2, (apart.mean(), apart.max())


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_verdict_on_damaged_files(kind: str) -> None:
    whole = _file(kind)
    rng = random.Random(f"damage {kind}")
    refused = 0
    for _ in range(250):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3))):
            place = rng.randrange(len(data) if rng.random() < 0.6 else min(len(data), 700))
            what = rng.random()
            if what < 0.5:
                data[place] = rng.randrange(256)
            elif what < 0.75:
                del data[place : place + rng.randrange(1, 200)]
            else:
                data[place:place] = rng.randbytes(rng.randrange(1, 30))
        expected = _verdict(_by_pillow, bytes(data))
        assert _verdict(decode_grey, bytes(data)) == _verdict(as_grey_file, bytes(data)) == expected
        refused += expected != "whole"
    assert refused > 10


def test_a_small_file_that_claims_to_be_enormous_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 301 * 90 - 1)
    for kind in KINDS:
        for function in (decode_grey, as_grey_file):
            assert _verdict(function, _file(kind)) == "image too large (301x90)"
