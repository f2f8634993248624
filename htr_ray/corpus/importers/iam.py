"""Importer ``iam``: the IAM Handwriting Database 3.0, its lines or words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import PurePosixPath

from htr_ray.corpus.importers.check import Normalisation
from htr_ray.corpus.importers.layout import LayoutError, read_xml
from htr_ray.corpus.importers.listing import Listing, packed, read_splits, rows
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.units import ImageFiles, ImageRef, image_units, read_or_why
from htr_ray.corpus.schema import Imported, SetAside
from htr_ray.errors import UserError

LAYOUT = """\
iam: the IAM Handwriting Database (https://fki.tic.heia-fr.ch), as its archives unpack.
  --input is the folder that holds them, each in a folder of its own or not

    iam/lines/a01/a01-000u/a01-000u-00.png      lines.tgz (--level lines, the default)
    iam/words/a01/a01-000u/a01-000u-00-00.png   words.tgz (--level words)
    iam/ascii/lines.txt words.txt forms.txt     ascii.tgz: texts, and the writer of each form
    iam/xml/a01-000u.xml                        xml.tgz: texts and writers too; one of ascii and xml is enough

  Texts of lines are taken from xml/ where there is one: "Mr. Gaitskell's bill." Otherwise from lines.txt,
  whose tokens are joined by blanks: "Mr. Gaitskell's bill ." (results of the two do not compare).
  --skip-err leaves out what the database marks as badly segmented. Splits: --split-files names a folder of
  lists of line or form ids, such as trainset.txt, validationset1.txt, validationset2.txt and testset.txt (the
  large writer independent task), train.uttlist, validation.uttlist and test.uttlist (Aachen) or tr.lst, va.lst
  and te.lst, or a single file with rows "a01-000u train". Without it the corpus is split by writer.
"""
_FORM = r"[a-z]\d{2}-\d{3}[a-z]?"
_ID = {"lines": re.compile(rf"({_FORM})-\d{{2}}"), "words": re.compile(rf"({_FORM})-\d{{2}}-\d{{2}}")}
# words.txt documents a column that it does not have: the number of components before the box.
_ROW = {
    "lines": re.compile(rf"(?P<id>{_FORM}-\d{{2}})\s+(?P<status>\w+)\s+(?:-?\d+\s+){{6}}(?P<text>.*)"),
    "words": re.compile(rf"(?P<id>{_FORM}-\d{{2}}-\d{{2}})\s+(?P<status>\w+)\s+(?:-?\d+\s+){{5,6}}\S+\s+(?P<text>.*)"),
}


@dataclass(frozen=True, slots=True)
class Form:
    """A form and those of its images that are wanted."""

    name: str
    xml: str | None
    """URI of its XML; None: there is none."""
    refs: tuple[ImageRef, ...]
    images: tuple[str, ...] | None
    """Ids of all its images, if its XML is the only list of what there should be."""


@dataclass(frozen=True)
class Forms:
    """Some forms: their XML gives the writer, and the texts where images have none yet."""

    forms: tuple[Form, ...]
    level: str
    skip_err: bool
    normalisation: Normalisation

    def lines(self) -> Iterator[Imported | SetAside]:
        refs = []
        for form in self.forms:
            for item in self._complete(form):
                if isinstance(item, SetAside):
                    yield item
                else:
                    refs.append(item)
        yield from ImageFiles(tuple(refs), self.normalisation).lines()

    def _complete(self, form: Form) -> Iterator[ImageRef | SetAside]:
        found = _read_xml(form, self.level)
        if isinstance(found, SetAside):
            for ref in form.refs:
                yield ref if ref.text is not None else replace(found, id=ref.id)
            return
        writer, texts = found
        for ref in form.refs:
            if ref.text is not None:
                yield replace(ref, writer=ref.writer or writer)
                continue
            text, status = texts.get(ref.id, (None, ""))
            if text is None:
                yield SetAside(ref.id, "no text in the XML of the form", form.xml or "")
            elif self.skip_err and status not in ("", "ok"):
                yield SetAside(ref.id, "marked as badly segmented", status)
            else:
                yield replace(ref, text=text, writer=ref.writer or writer)
        if form.images is not None:
            for id in sorted(texts.keys() - set(form.images)):
                yield SetAside(id, "file cannot be read", f"in {form.xml}, but there is no image of it")


def units(uri: str, options: ImportOptions) -> Iterator[ImageFiles | Forms | SetAside]:
    """Yield the lines (or words) that the index lists, and what has an image but is not listed.

    Raises UserError when images, index or the lists of --split-files are missing.
    """
    source = _Source(uri, options)
    if not source.uses_xml:
        yield from image_units(source.items(), options.normalisation)
        return
    refs = []
    for item in source.items():
        if isinstance(item, SetAside):
            yield item
        else:
            refs.append(item)
    for forms in packed(source.forms(refs), lambda form: len(form.refs)):
        yield Forms(forms, options.level, options.skip_err, options.normalisation)


class _Source:
    """What there is of the database."""

    def __init__(self, uri: str, options: ImportOptions) -> None:
        level = options.level
        self._options = options
        self._listing = listing = Listing(uri, "iam")
        self._id = _ID[level]
        stems = [(PurePosixPath(name).stem, name) for name in listing.images()]
        self._images = {stem: name for stem, name in stems if self._id.fullmatch(stem)}
        names = [name for name in listing.names if name.lower().endswith(".xml")]
        forms = [(PurePosixPath(name).stem, name) for name in names]
        self._xml = {stem: name for stem, name in forms if re.fullmatch(_FORM, stem)}
        looked = (f"ascii/{level}.txt", f"{level}.txt", f"{level}/{level}.txt")
        self._index = listing.find(*looked)
        if self._index is None and not self._xml:
            raise UserError(
                f"--input {uri}: no {level}.txt (looked for {', '.join(looked)}) and no XML of forms such as"
                " xml/a01-000u.xml; unpack ascii.tgz or xml.tgz there"
            )
        if not self._images:
            example = "a01-000u-00.png" if level == "lines" else "a01-000u-00-00.png"
            raise UserError(f"--input {uri}: no image of {level} such as {example}; unpack {level}.tgz there")
        self._writers = self._read_writers()
        self._splits = read_splits(options.split_files) if options.split_files else None
        self._text_from_xml = bool(self._xml) and (level == "lines" or self._index is None)
        self.uses_xml = bool(self._xml) and (self._text_from_xml or not self._writers)

    def forms(self, refs: list[ImageRef]) -> Iterator[Form]:
        """The wanted images form by form, for XML to be read beside them."""
        images: dict[str, list[str]] = {}
        for id in sorted(self._images) if self._index is None else ():
            images.setdefault(self._form(id), []).append(id)
        for name, its in groupby(sorted(refs, key=lambda ref: ref.id), key=lambda ref: self._form(ref.id)):
            xml = self._xml.get(name)
            found = tuple(images[name]) if self._index is None else None
            yield Form(name, self._listing.path(xml) if xml else None, tuple(its), found)

    def items(self) -> Iterator[ImageRef | SetAside]:
        """Every image that is wanted, and why the others are not."""
        seen: set[str] = set()
        for item in self._listed() if self._index is not None else self._unlisted():
            seen.add(item.id)
            if isinstance(item, SetAside):
                yield item
                continue
            split = self._splits.of(item.id) if self._splits else None
            if self._splits and split is None:
                yield SetAside(item.id, "in no split list")
            elif item.id not in self._images:
                yield SetAside(item.id, "file cannot be read", f"{item.image}: not found")
            else:
                yield replace(item, split=split)
        for id in sorted(self._images.keys() - seen):
            yield SetAside(id, "image in no list", self._images[id])
        if self._splits:
            yield from self._splits.unused()

    def _listed(self) -> Iterator[ImageRef | SetAside]:
        """The rows of the index."""
        assert self._index is not None
        for number, row in rows(self._listing.path(self._index)):
            match = _ROW[self._options.level].fullmatch(row)
            if match is None:
                yield SetAside(f"{self._index}:{number}", "row that cannot be read", row[:100])
            elif self._options.skip_err and match["status"] != "ok":
                yield SetAside(match["id"], "marked as badly segmented", match["status"])
            else:
                text = match["text"] if self._options.level == "words" else match["text"].replace("|", " ")
                yield self._ref(match["id"], None if self._text_from_xml else text)

    def _unlisted(self) -> Iterator[ImageRef]:
        """Without an index: the images that are there."""
        for id in sorted(self._images):
            yield self._ref(id, None)

    def _ref(self, id: str, text: str | None) -> ImageRef:
        form, level = self._form(id), self._options.level
        image = self._images.get(id) or f"{level}/{form[:3]}/{form}/{id}.png"
        return ImageRef(id, self._listing.path(image), text, writer=self._writers.get(form), page=form)

    def _form(self, id: str) -> str:
        match = self._id.fullmatch(id)
        assert match is not None
        return match[1]

    def _read_writers(self) -> dict[str, str]:
        forms = self._listing.find("ascii/forms.txt", "forms.txt")
        if forms is None:
            return {}
        fields = (row.split() for _, row in rows(self._listing.path(forms)))
        return {row[0]: row[1] for row in fields if len(row) > 1 and re.fullmatch(_FORM, row[0])}


def _read_xml(form: Form, level: str) -> tuple[str | None, dict[str, tuple[str, str]]] | SetAside:
    """Writer, and text and segmentation by id."""
    if form.xml is None:
        return SetAside(form.name, "form without XML", f"no {form.name}.xml")
    data = read_or_why(form.name, form.xml)
    if isinstance(data, SetAside):
        return data
    try:
        root = read_xml(data)
    except LayoutError as error:
        reason, detail = error.args
        return SetAside(form.name, reason, f"{form.xml}: {detail}")
    texts = {}
    for line in root.iter("line"):
        for element in [line] if level == "lines" else line.iter("word"):
            # Escaped twice: the XML of the database says text="&amp;quot;" for a quotation mark.
            text = html.unescape(element.get("text", ""))
            texts[element.get("id", "")] = (text, line.get("segmentation", ""))
    return root.get("writer-id"), texts
