"""Importer ``pairs``: a folder of line images, each with a text file beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from htr_ray import storage
from htr_ray.corpus.importers.names import IMAGE_SUFFIXES, is_hidden, is_image
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.units import ImageFiles, ImageRef, image_units
from htr_ray.corpus.schema import SetAside
from htr_ray.errors import UserError

LAYOUT = """\
pairs: a folder of line images, each with its transcription beside it (OCRopus, kraken, Tesseract, Calamari).
  --input is the folder; folders inside it are read too

    lines/anna/0001.png   lines/anna/0001.gt.txt     one line of UTF-8 text
    lines/anna/0002.jpg   lines/anna/0002.txt        NAME.gt.txt wins over NAME.txt
    lines/bert/0001.tif   (no text: kept as an unlabelled line)

  Images: png jpg jpeg tif tiff bmp gif webp jp2. With --writer-from folder (the default) the folder of an
  image names its writer (anna, bert); with --writer-from none writers are not known.
"""
TEXT_SUFFIXES = (".gt.txt", ".txt")
# OCRopus writes 0001.bin.png (binarised) or 0001.nrm.png (normalised) to 0001.gt.txt.
_VARIANTS = (".bin", ".nrm", ".dew")


def units(uri: str, options: ImportOptions) -> Iterator[ImageFiles | SetAside]:
    """Yield all images below the folder ``uri``, in the order of their names.

    Raises UserError when the folder is missing, unreadable or holds no image.
    """
    if not storage.exists(uri):
        raise UserError(f"--input {uri}: not found; check the spelling")
    if not storage.is_dir(uri):
        raise UserError(f"--input {uri}: is a file; --format pairs wants the folder of the images")
    names = [name for name in storage.walk(uri) if not is_hidden(name)]
    images = [name for name in names if is_image(name)]
    if not images:
        kinds = sorted({PurePosixPath(name).suffix or name for name in names})[:10]
        found = f"only {', '.join(kinds)}" if kinds else "it is empty"
        endings = " ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"--input {uri}: no image there ({found}); images end in {endings}")
    texts = {name for name in names if name.endswith(TEXT_SUFFIXES)}
    pairs = [(name, _text_of(name, texts)) for name in images]
    yield from image_units((_ref(uri, options, *pair) for pair in pairs), options.normalisation)
    # NAME.txt beside a NAME.gt.txt that won is no orphan.
    used = {name.removesuffix(".gt.txt") + suffix for _, name in pairs if name for suffix in TEXT_SUFFIXES}
    used |= {name for _, name in pairs if name}
    for name in sorted(texts - used):
        yield SetAside(name, "text without an image")


def _text_of(image: str, texts: set[str]) -> str | None:
    stem = str(PurePosixPath(image).with_suffix(""))
    stems = [stem] + [stem.removesuffix(variant) for variant in _VARIANTS if stem.endswith(variant)]
    return next((s + suffix for s in stems for suffix in TEXT_SUFFIXES if s + suffix in texts), None)


def _ref(uri: str, options: ImportOptions, image: str, text: str | None) -> ImageRef:
    path = PurePosixPath(image)
    folder = str(path.parent)
    return ImageRef(
        id=str(path.with_suffix("")),
        image=storage.join(uri, image),
        text_uri=None if text is None else storage.join(uri, text),
        writer=folder if options.writer_from == "folder" and folder != "." else None,
    )
