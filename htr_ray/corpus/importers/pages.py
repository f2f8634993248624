"""Pages with their layout in XML: which image belongs to which file, and the unit that cuts out the lines."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from fsspec.implementations.arrow import ArrowFSWrapper
from lxml import etree

from htr_ray import storage
from htr_ray.corpus import extract
from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.importers.check import RawLine, check_line, in_parallel
from htr_ray.corpus.importers.layout import Layout, LayoutError, LayoutLine
from htr_ray.corpus.importers.names import is_hidden
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.page_images import PageImages
from htr_ray.corpus.importers.units import read_or_why
from htr_ray.corpus.schema import Imported, SetAside, Split
from htr_ray.errors import UserError

Kind = Literal["alto", "page"]
_ROOTS: dict[str, Kind] = {"alto": "alto", "pcgts": "page"}
_NAMES: dict[Kind, str] = {"alto": "ALTO", "page": "PAGE"}
# Suffixes that say which reading it is: .chocomufin.xml, .gt.xml; not the dots of a shelf mark: Ms.1.04.xml.
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z_-]*$")
# Folders that programs put XML into, below the images.
_XML_FOLDERS = ("page", "alto", "xml")
_CHUNK = 1 << 16
_EXAMPLES = 4
# An image that is stretched more than this against its page is another one, or turned.
_MAX_STRETCH = 1.2


@dataclass(frozen=True)
class PageUnit:
    """The lines of one page."""

    xml: str
    """URI of the layout."""
    image: str | None
    """URI of the page image; None: not found."""
    kind: Kind
    page: str
    """Its name in the corpus, and the first part of its lines' ids."""
    writer: str | None
    split: Split | None
    options: ImportOptions

    def lines(self) -> Iterator[Imported | SetAside]:
        """Yield the lines; a fault of the whole page is set aside once, with the number of lines it costs."""
        data = read_or_why(self.page, self.xml)
        if isinstance(data, SetAside):
            yield data
            return
        try:
            layout = _parser(self.kind)(data)
        except LayoutError as error:
            reason, detail = error.args
            yield SetAside(self.page, reason, detail)
            return
        try:
            image = self._image(layout)
            found = outlines(layout, image.shape)
        except LayoutError as error:
            reason, detail = error.args
            yield SetAside(self.page, reason, f"{detail}; {len(layout.lines)} lines")
            return
        yield from self._cut(layout, extract.Page(image, found), found)

    def _image(self, layout: Layout) -> np.ndarray:
        """The page image in grey. Raises LayoutError when there is none, or no use for it."""
        if not layout.lines:
            raise LayoutError("page without lines", self.xml)
        if self.image is None:
            named = f"'{layout.image}'" if layout.image else "no image"
            detail = f"the XML names {named}, and neither that nor its own name leads to one image (see --images)"
            raise LayoutError("page image missing", detail)
        data = read_or_why(self.page, self.image)
        if isinstance(data, SetAside):
            raise LayoutError("page image unreadable", data.detail)
        try:
            return decode_grey(data)
        except ValueError as error:
            raise LayoutError("page image unreadable", f"{self.image}: {error}") from None

    def _cut(self, layout: Layout, page: extract.Page, found: list[extract.Outline]) -> Iterator[Imported | SetAside]:
        # On a page with text, a line without is an oversight; a page without any is material to pre-train on.
        transcribed = any(line.text and line.text.strip() for line in layout.lines)
        for line, outline in zip(layout.lines, found, strict=True):
            id_ = f"{self.page}/{line.id}"
            if line.page:
                yield SetAside(id_, "line of a further page", f"page {line.page + 1} of {self.xml}")
            elif transcribed and not (line.text and line.text.strip()):
                yield SetAside(id_, "empty text", "other lines of the page have text")
            else:
                try:
                    cut = page.cut(outline, self.options.height)
                except extract.NoGeometry as error:
                    yield SetAside(id_, "no geometry", str(error))
                    continue
                text = line.text if transcribed else None
                raw = RawLine(id_, cut, text, self.writer, self.page, self.split)
                yield check_line(raw, self.options.normalisation)


def find_units(kind: Kind, uri: str, options: ImportOptions) -> Iterator[PageUnit | SetAside]:
    """Yield one unit for each XML file of a kind at ``uri``, in the order of their names.

    XML of another kind is set aside. Raises UserError when there is none of this kind, when several files
    lay out the same image and ``options.xml`` does not choose one, or when ``--images`` is not found.
    """
    base, names, listing = _find(uri)
    if not names:
        raise UserError(f"--input {uri}: no XML file (*.xml) there; see --help for the formats")
    chosen = [name for name in names if _is_chosen(name, options.xml)]
    if not chosen:
        some = ", ".join(names[:_EXAMPLES])
        raise UserError(f"--input {uri}: --xml '{options.xml}' leaves none of the {len(names)} XML files ({some})")
    images = PageImages(base, listing, options.images)
    heads = dict(zip(chosen, in_parallel(partial(_head, base), chosen), strict=True))
    others = {name: head.root for name, head in heads.items() if head.root and _kind(head.root) != kind}
    if len(others) == len(chosen):
        roots = ", ".join(f"{n} <{root}>" for root, n in Counter(others.values()).most_common(_EXAMPLES))
        found = {_kind(root) for root in others.values()} - {None}
        cure = f"; try --format {found.pop()}" if found else ""
        raise UserError(
            f"--input {uri}: none of {len(chosen)} XML files is {_NAMES[kind]} (their roots: {roots}){cure}"
        )
    image_of = {name: images.find(_folders(base, name), head.image, _stems(name)) for name, head in heads.items()}
    own = [name for name in chosen if name not in others]
    _refuse_readings(uri, {name: image_of[name] for name in own})
    pages = _page_names(own)
    for name in chosen:
        if name in others:
            yield SetAside(name, f"not {_NAMES[kind]} XML", f"its root is <{others[name]}>")
        else:
            writer = _writer(name, pages[name], options)
            yield PageUnit(storage.join(base, name), image_of[name], kind, pages[name], writer, None, options)


# --- the files --------------------------------------------------------------------------------------------


class _Head(NamedTuple):
    """The beginning of an XML file."""

    root: str | None = None
    """Name of its root; None: there is none to see."""
    image: str | None = None
    """Name of the page image."""


def _find(uri: str) -> tuple[str, list[str], list[str] | None]:
    """The folder to start from, the XML files (relative to it), and all files, if it was read with what is inside."""
    whole = storage.normalise(uri)
    if storage.exists(whole):
        if storage.is_dir(whole):
            listing = [name for name in storage.walk(whole) if not is_hidden(name)]
            return whole, [name for name in listing if name.lower().endswith(".xml")], listing
        base, _, name = whole.rpartition("/")
        return base or "/", [name], None
    fixed = re.split(r"[*?\[]", whole, maxsplit=1)[0]
    if fixed == whole:
        raise UserError(f"--input {uri}: not found; check the spelling")
    base = fixed.rpartition("/")[0] or "/"
    filesystem, path = storage.filesystem(whole)
    start = storage.filesystem(base)[1].rstrip("/") + "/"
    matches = sorted(match.removeprefix(start) for match in ArrowFSWrapper(filesystem).glob(path))
    return base, [name for name in matches if name.lower().endswith(".xml") and not is_hidden(name)], None


def _is_chosen(name: str, pattern: str | None) -> bool:
    """Whether ``--xml`` takes a file: a pattern of names, or of paths if it has a slash; ``!`` takes the others."""
    if pattern is None:
        return True
    wanted = pattern.removeprefix("!")
    found = fnmatchcase(name if "/" in wanted else PurePosixPath(name).name, wanted)
    return found != pattern.startswith("!")


def _head(base: str, name: str) -> _Head:
    """Read a file up to the name of its image. What is wrong with it will show when it is read as a whole."""
    parser = etree.XMLPullParser(("start", "end"), resolve_entities=False, no_network=True, load_dtd=False)
    root = None
    try:
        with storage.open_input(storage.join(base, name)) as stream:
            while chunk := stream.read(_CHUNK):
                parser.feed(chunk)
                for event, element in parser.read_events():
                    tag = etree.QName(element).localname if isinstance(element.tag, str) else ""
                    root = root or tag
                    if event == "end" and tag == "fileName":
                        return _Head(root, (element.text or "").strip() or None)
                    if event == "start" and tag == "Page":
                        return _Head(root, (element.get("imageFilename") or "").strip() or None)
    except storage.Unavailable as error:
        if not storage.is_local(base):
            raise error
    except (UserError, etree.XMLSyntaxError):
        pass
    return _Head(root)


def _kind(root: str) -> Kind | None:
    return _ROOTS.get(root.lower())


def _folders(base: str, name: str) -> list[str]:
    """Where the image of a file may be, relative to ``base``: beside it, or above a folder made for XML."""
    folder = str(PurePosixPath(name).parent)
    own = PurePosixPath(base).name if folder == "." else PurePosixPath(folder).name
    above = [".." if folder == "." else str(PurePosixPath(folder).parent)] if own.lower() in _XML_FOLDERS else []
    return [folder, *above]


def _stems(name: str) -> list[str]:
    """A file's name without ``.xml``, and without all the suffixes that tell readings apart."""
    whole = PurePosixPath(name).name[: -len(".xml")]
    short = whole
    while _SUFFIX.search(short) and not short.startswith("."):
        short = _SUFFIX.sub("", short)
    return list(dict.fromkeys([whole, short]))


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(f"--writer-pattern '{text}': not a regular expression ({error})") from error
    if not pattern.groups:
        raise UserError(f"--writer-pattern '{text}': has no group; put what names the writer in (...)")
    return pattern


def _page_names(names: list[str]) -> dict[str, str]:
    """What the pages of some files are called: as short as they can be told apart."""
    folders = {name: PurePosixPath(name).parent for name in names}
    short = {name: str(folders[name] / _stems(name)[-1]) for name in names}
    shared = Counter(short.values())
    return {name: short[name] if shared[short[name]] == 1 else str(folders[name] / _stems(name)[0]) for name in names}


def _refuse_readings(uri: str, image_of: dict[str, str | None]) -> None:
    readings: dict[str, list[str]] = defaultdict(list)
    for name, image in image_of.items():
        if image is not None:
            readings[image].append(name)
    several = {image: names for image, names in readings.items() if len(names) > 1}
    if not several:
        return
    image, names = next(iter(several.items()))
    suffixes = sorted({PurePosixPath(name).name.removeprefix(_stems(name)[-1]) for name in names}, key=len)
    hint = "PATTERN"
    if len(suffixes) > 1:
        hint = f"PATTERN, such as '*{suffixes[-1]}', or '!*{suffixes[-1]}' for the others"
    raise UserError(
        f"--input {uri}: {len(several)} page images have several XML files, for instance"
        f" {image.rpartition('/')[2]}: {', '.join(names)}; choose with --xml {hint}"
    )


def _writer(name: str, page: str, options: ImportOptions) -> str | None:
    if options.writer_pattern is not None:
        match = _pattern(options.writer_pattern).search(page)
        return match.group(1) if match else None
    if options.writer_from == "page":
        return page
    folder = PurePosixPath(name).parent
    if folder.name.lower() in _XML_FOLDERS:
        folder = folder.parent
    return str(folder) if options.writer_from == "folder" and folder.name else None


# --- the page ---------------------------------------------------------------------------------------------


def _parser(kind: Kind) -> Callable[[bytes], Layout]:
    # The formats' modules offer their units from this one.
    from htr_ray.corpus.importers import alto, page

    return alto.parse if kind == "alto" else page.parse


def outlines(layout: Layout, shape: tuple[int, ...]) -> list[extract.Outline]:
    """Where the lines of a page are on its image of that shape, in pixels. Raises LayoutError as ``_scale`` does."""
    scale = _scale(layout, shape)
    spacing = _spacing(layout, scale)
    return [_outline(line, scale, spacing) for line in layout.lines]


def _scale(layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels of the image per unit of the page, ``[2]`` (x, y).

    The size of the page in its own units says it, whatever these are. Raises LayoutError when it does not.
    """
    if not layout.width or not layout.height or layout.width < 0 or layout.height < 0:
        if layout.unit == "pixel":
            return np.ones(2)
        detail = f"MeasurementUnit is {layout.unit}, and the page's WIDTH and HEIGHT are not told"
        raise LayoutError("page size unknown", detail)
    scale = np.array([shape[1] / layout.width, shape[0] / layout.height])
    if scale.max() > _MAX_STRETCH * scale.min():
        detail = f"page {layout.width:g}x{layout.height:g}, image {shape[1]}x{shape[0]}"
        raise LayoutError("page size does not fit image", detail)
    return scale


def _outline(line: LayoutLine, scale: np.ndarray, spacing: float | None) -> extract.Outline:
    left, top, right, bottom = line.box or (0.0, 0.0, 0.0, 0.0)
    return extract.Outline(
        polygon=None if line.polygon is None else line.polygon * scale,
        baseline=None if line.baseline is None else line.baseline * scale,
        box=None if line.box is None else (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1]),
        spacing=spacing,
    )


def _spacing(layout: Layout, scale: np.ndarray) -> float | None:
    """The usual distance of baselines, in pixels; None where there are no two, one above the other."""
    found = [line.baseline * scale for line in layout.lines if line.baseline is not None and not line.page]
    if len(found) < 2:
        return None
    left, right = (np.array([edge(baseline[:, 0]) for baseline in found]) for edge in (np.min, np.max))
    height = np.array([baseline[:, 1].mean() for baseline in found])
    below = height[None] - height[:, None]
    above_each_other = (left[None] < right[:, None]) & (left[:, None] < right[None]) & (below > 0)
    nearest = np.where(above_each_other, below, np.inf).min(1)
    nearest = nearest[np.isfinite(nearest)]
    return float(np.median(nearest)) if len(nearest) else None
