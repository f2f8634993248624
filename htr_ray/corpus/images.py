"""Encoded image files to grey arrays and back."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np
from PIL import Image

from htr_ray.corpus.headers import Header, plain_header

# A scan of a whole double page at 600 dpi is smaller; what is larger is a mistake or an attack.
MAX_PIXELS = 100_000_000
_ORIENTATION_TAG, _UPRIGHT = 0x0112, 1
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright."""


def decode_grey(data: bytes) -> np.ndarray:
    """Decode an image file (any format that Pillow reads) to ``uint8 [H, W]``.

    Transparency is laid on white paper, 16-bit greys are scaled to 8, EXIF orientation is applied. Raises
    ValueError with a short reason when the data is not a whole image.
    """
    header = plain_header(data)
    array = None if header is None else _decode_plain(data, header)
    return _grey(_open(data)) if array is None else array


def encode_png(array: np.ndarray) -> bytes:
    """Encode ``uint8 [H, W]`` as PNG."""
    if array.ndim != 2 or array.dtype != np.uint8 or array.size == 0:
        raise ValueError(f"expected a non-empty uint8 [H, W] array, got {array.dtype} {list(array.shape)}")
    return cv2.imencode(".png", array)[1].tobytes()


def as_grey_file(data: bytes) -> tuple[bytes, int, int]:
    """Return ``(file, width, height)``: a grey PNG or JPEG of the image in ``data``.

    A file that is one already is decoded to prove it whole, and kept byte for byte; others become PNG.
    Raises ValueError with a short reason, as ``decode_grey`` does.
    """
    header = plain_header(data)
    if header is not None:
        if header.channels == 1 and _is_whole(data, header):
            return data, header.width, header.height
        array = _decode_plain(data, header) if header.channels == 3 else None
        if array is not None:
            return encode_png(array), header.width, header.height
    image = _open(data)
    mode = image.mode  # before _grey asks for luminance alone
    array = _grey(image)
    height, width = array.shape
    keep = mode == "L" and image.format in ("PNG", "JPEG") and "transparency" not in image.info
    keep = keep and _orientation(image) == _UPRIGHT
    return data if keep else encode_png(array), width, height


def _is_whole(data: bytes, header: Header) -> bool:
    """Whether a plain grey file decodes. A JPEG's eighth of the size reads every bit of it, and skips the cosines."""
    if header.kind == "PNG":
        return _decode_plain(data, header) is not None
    found = _imdecode(data, header, cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION)
    return found is not None and found.shape == (-(-header.height // 8), -(-header.width // 8))


def _decode_plain(data: bytes, header: Header) -> np.ndarray | None:
    """``uint8 [H, W]`` by OpenCV, which takes half of Pillow's time for what corpora hold, and an eighth for colour.

    The pixels are Pillow's; of a colour JPEG they are its luminance, as stored, which Pillow would turn into red,
    green and blue and back. None: not decoded, Pillow's word counts.
    """
    found = _imdecode(data, header, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    return found if found is not None and found.shape == (header.height, header.width) else None


def _imdecode(data: bytes, header: Header, how: int) -> np.ndarray | None:
    if not 0 < header.width * header.height <= MAX_PIXELS:
        return None
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        return None
    return array if array is not None and array.ndim == 2 and array.dtype == np.uint8 else None


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ValueError("empty file")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit only warns; ours follows.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise ValueError("image too large") from None
    except Exception:  # Pillow's readers raise whatever a broken header trips over
        raise ValueError("not an image") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"image too large ({image.width}x{image.height})")
    if image.width == 0 or image.height == 0:
        raise ValueError("zero-size image")
    return image


def _grey(image: Image.Image) -> np.ndarray:
    try:
        if image.format == "JPEG" and image.mode == "RGB":
            # The luminance as stored: half the time, and the same but for rounding.
            image.draft("L", image.size)
        image.load()
    except Exception as error:  # as above: any exception means that the file is not whole
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"corrupt image ({reason[:100]})") from None
    if (turn := _TURNS.get(_orientation(image))) is not None:
        # Not ImageOps.exif_transpose: it writes the EXIF anew, and raises whatever its other, damaged fields trip over.
        image = image.transpose(turn)
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(np.asarray(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("L"))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of a loaded image; damaged EXIF is no reason to lose a line."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, _UPRIGHT))
    except Exception:  # as above
        return _UPRIGHT


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """Deep greys to 8 bits: the range is told by dtype and content (0..1, 0..255 or 0..65535)."""
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 65535:
        raise ValueError("grey values out of range")
    top = float(array.max())
    if array.dtype == np.uint16 or top > 255:
        scale = 255 / 65535
    elif array.dtype.kind == "f" and top <= 1:
        scale = 255.0
    else:
        scale = 1.0
    return np.round(array * scale).astype(np.uint8)
