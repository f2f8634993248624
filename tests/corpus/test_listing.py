"""Trees, index files and split lists of the classic datasets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import image, plant

from htr_ray.corpus.importers.listing import (
    Listing,
    packed,
    printable,
    read_lists,
    rows,
    split_of_list,
)
from htr_ray.corpus.importers.units import UNIT_LINES, ImageRef, image_units
from htr_ray.corpus.schema import SetAside
from htr_ray.errors import UserError


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("trainset.txt", "train"), ("a/validationset1.txt", "val"), ("validationset2.txt", "val"),
        ("testset.txt", "test"), ("train.uttlist", "train"), ("validation.uttlist", "val"), ("tr.lst", "train"),
        ("va.lst", "val"), ("va2.lst", "val"), ("te.lst", "test"), ("TrainLines.lst", "train"),
        ("ValidationLines.txt", "val"), ("TestLines.txt", "test"), ("valid.txt", "val"), ("keywords.txt", None),
        ("README.txt", None), ("lines.txt", None), ("transcription.txt", None),
    ],
)  # fmt: skip
def test_names_of_lists(name: str, split: str | None) -> None:
    assert split_of_list(name) == split


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join(["# comment", " é\u2028\x0cb ", "", "  # another", "c"])
    path = plant(tmp_path, {"index.txt": text.encode(encoding)}) / "index.txt"
    assert list(rows(str(path))) == [(2, "é\u2028\x0cb"), (5, "c")]


def test_rows_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = plant(tmp_path, {"index.txt": b"a\xff b\nc"}) / "index.txt"
    assert list(rows(str(path))) == [(1, "a\ufffd b"), (2, "c")]


def test_the_longest_listed_start_counts(tmp_path: Path) -> None:
    plant(tmp_path, {"train.txt": "a01-000\na01-001-02\n", "test.txt": "a01-001\nz"})
    lists = read_lists({str(tmp_path / "train.txt"): "train", str(tmp_path / "test.txt"): "test"})
    found = [lists.of(id) for id in ("a01-000-05", "a01-000u", "a01-001-02-03", "a01-001-03", "a01", "a01-000")]
    assert found == ["train", None, "train", "test", None, "train"]
    assert [(item.id, item.detail) for item in lists.unused()] == [("z", str(tmp_path / "test.txt"))]


def test_find(tmp_path: Path) -> None:
    listing = Listing(str(plant(tmp_path, {"x/ascii/Lines.txt": "", "deep/in/lines.txt": "", "myLines.txt": ""})), "x")
    assert listing.find("ascii/lines.txt", "lines.txt") == "x/ascii/Lines.txt"
    assert listing.find("nothing.txt", "lines.txt") == "deep/in/lines.txt"
    assert listing.find("nothing.txt") is None


def test_what_is_not_seen(tmp_path: Path) -> None:
    names = ("a.png", ".b.png", ".git/c.png", "__MACOSX/d.png", "e.v2.PNG", "f.txt")
    listing = Listing(str(plant(tmp_path, {name: image() for name in names})), "x")
    assert listing.names == ["a.png", "e.v2.PNG", "f.txt"]
    assert list(listing.images()) == ["a.png", "e.v2.PNG"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr.png")).write_bytes(image())
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    with pytest.raises(UserError, match="^--input .*: 1 file names are not UTF-8, for instance f\ufffdr.png; rename"):
        Listing(str(tmp_path), "x")
    assert Listing(str(tmp_path), "x", odd_names=True).names == ["f\udcfcr.png"]


@given(st.binary(max_size=20))
def test_printable_names(name: bytes) -> None:
    printable(name.decode("utf-8", "surrogateescape")).encode()


@given(st.lists(st.integers(0, 600), max_size=30))
def test_packed(sizes: list[int]) -> None:
    packs = list(packed(sizes, lambda size: size))
    assert [size for pack in packs for size in pack] == sizes
    assert all(sum(pack[:-1]) < UNIT_LINES for pack in packs)
    assert all(sum(pack) >= UNIT_LINES for pack in packs[:-1])


def test_units_come_as_their_images_do() -> None:
    items = [ImageRef(str(n), "x") if n % 2 else SetAside(str(n), "why") for n in range(1200)]
    seen = []

    def source():
        for item in items:
            seen.append(item)
            yield item

    stream = image_units(source(), "NFC")
    first = next(unit for unit in stream if not isinstance(unit, SetAside))
    assert len(first.refs) == UNIT_LINES and len(seen) == 2 * UNIT_LINES
    rest = [len(unit.refs) for unit in stream if not isinstance(unit, SetAside)]
    assert rest == [UNIT_LINES, 600 - 2 * UNIT_LINES]
