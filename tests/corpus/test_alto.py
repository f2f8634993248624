"""Importer ``alto``: every dialect, finding images, what is set aside, and damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_trees import FUZZ, HEIGHT, TEXTS, WIDTH, check_accounts, check_damaged, damage, draw_page, read, write_image

from htr_ray import storage
from htr_ray.corpus.images import decode_grey
from htr_ray.corpus.importers import alto
from htr_ray.corpus.importers.layout import LayoutError
from htr_ray.corpus.importers.options import ImportOptions
from htr_ray.corpus.importers.pages import PageUnit
from htr_ray.corpus.schema import Line
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]
_V4 = "http://www.loc.gov/standards/alto/ns-v4#"


def _line(row: int = 0, text: str | None = "x", scale: float = 1.0, inside: str = "", **attributes: str) -> str:
    """A TextLine of the drawn page; ``inside`` stands for shape and strings."""
    top = 60 * row + 25
    given = {"ID": f"l{row}", "HPOS": 35, "VPOS": top, "WIDTH": 200, "HEIGHT": 45}
    numbers = {name: str(value * scale) if isinstance(value, int) else value for name, value in given.items()}
    told = " ".join(f'{name}="{value}"' for name, value in (numbers | attributes).items() if value)
    string = "" if text is None else f'<String CONTENT="{text}"/>'
    return f"<TextLine {told}>{inside}{string}</TextLine>"


def _alto(
    *lines: str, image: str = "p.png", namespace: str | None = _V4, unit: str = "pixel", size: str | None = None
) -> bytes:
    """An ALTO file of these lines."""
    xmlns = f' xmlns="{namespace}"' if namespace else ""
    size = f'WIDTH="{WIDTH}" HEIGHT="{HEIGHT}"' if size is None else size
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<alto{xmlns}><Description><MeasurementUnit>{unit}</MeasurementUnit>'
        f"<sourceImageInformation><fileName>{image}</fileName></sourceImageInformation></Description>"
        f'<Layout><Page {size} ID="p"><PrintSpace><TextBlock ID="b">{"".join(lines)}</TextBlock></PrintSpace></Page>'
        "</Layout></alto>"
    ).encode()


def _tree(root: Path, **files: bytes) -> Path:
    """XML files (``__`` is a slash, ``_`` a dot) and, for each, a drawn page beside it."""
    for name, data in files.items():
        path = root / (name.replace("__", "/").replace("_", ".") + ".xml")
        write_image(path.parent / f"{path.name.partition('.')[0]}.png")
        path.write_bytes(data)
    return root


def _shape(line: Line) -> tuple[int, int]:
    return decode_grey(line.image).shape  # type: ignore[return-value]


# --- the format -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "namespace",
    [
        None,
        "http://schema.ccs-gmbh.com/ALTO",
        *(f"http://www.loc.gov/standards/alto/ns-v{n}#" for n in (2, 3, 4)),
        "http://bibnum.bnf.fr/ns/alto_prod",
    ],
)
def test_versions(namespace: str | None) -> None:
    layout = alto.parse(_alto(_line(0, "one"), _line(1, "two"), namespace=namespace))
    assert [(line.id, line.text) for line in layout.lines] == [("l0", "one"), ("l1", "two")]
    assert (layout.image, layout.width, layout.height, layout.unit) == ("p.png", WIDTH, HEIGHT, "pixel")


@pytest.mark.parametrize("text", ["1,2 30,4 5,60", "1 2 30 4 5 60", "(1,2) (30,4) (5,60)", " 1.0,2  30,4\n5,6e1 "])
def test_points(text: str) -> None:
    shape = f'<Shape><Polygon POINTS="{text}"/></Shape>'
    (line,) = alto.parse(_alto(_line(inside=shape, BASELINE=text))).lines
    for found in (line.polygon, line.baseline):
        assert found is not None and found.tolist() == [[1, 2], [30, 4], [5, 60]]


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "1,NaN 2,3 4,5", "1,inf 2,3", "a,b c,d", "1,2 3,1e9"])
def test_points_that_are_none(text: str) -> None:
    shape = f'<Shape><Polygon POINTS="{text}"/></Shape>'
    (line,) = alto.parse(_alto(_line(inside=shape, BASELINE=text))).lines
    assert line.polygon is None and line.baseline is None and line.box is not None


def test_baseline_of_one_number() -> None:
    """ALTO 2 and 3. Some programs count from elsewhere: a height outside the box is not believed."""
    inside, outside = alto.parse(_alto(_line(0, BASELINE="60"), _line(1, BASELINE="12"))).lines
    assert inside.baseline is not None and inside.baseline.tolist() == [[35, 60], [235, 60]]
    assert outside.baseline is None


@pytest.mark.parametrize(
    ("strings", "text"),
    [
        ('<String CONTENT="Le  chat"/>', "Le  chat"),
        ('<String CONTENT="Le"/><SP/><String CONTENT="chat"/>', "Le chat"),
        ('<String CONTENT="Le"/><String CONTENT="chat"/>', "Le chat"),
        ('<String CONTENT="d&apos;"/><String CONTENT="or"/><SP/><String CONTENT="fin"/>', "d'or fin"),
        ('<String CONTENT="exem" SUBS_TYPE="HypPart1" SUBS_CONTENT="exemple"/><HYP CONTENT="-"/>', "exem-"),
        ('<String CONTENT="exem-" SUBS_TYPE="HypPart1" SUBS_CONTENT="exemple"/><HYP CONTENT="-"/>', "exem-"),
        ('<String CONTENT="un"/><SP/><String CONTENT="exem"/><HYP CONTENT="&#xAD;"/>', "un exem-"),
        ('<String CONTENT="exem"/><HYP/>', "exem-"),
        ('<String CONTENT="exem&#xAD;"/>', "exem-"),
        ('<String CONTENT="ple" SUBS_TYPE="HypPart2" SUBS_CONTENT="exemple"/><SP/><String CONTENT="et"/>', "ple et"),
        ("<!-- said --><String CONTENT='a'/><?pi x?>", "a"),
        ('<String CONTENT=""/>', None),
        ("<SP/>", None),
        ("", None),
    ],
)
def test_text_as_written_on_the_line(strings: str, text: str | None) -> None:
    (line,) = alto.parse(_alto(_line(text=None, inside=strings))).lines
    assert line.text == text


def test_box_of_the_strings() -> None:
    words = '<String CONTENT="a" HPOS="10" VPOS="20" WIDTH="5" HEIGHT="9"/><String CONTENT="b" HPOS="30" VPOS="18"'
    (line,) = alto.parse(_alto(_line(text=None, inside=f'{words} WIDTH="7" HEIGHT="9"/>', HPOS=""))).lines
    assert line.box == (10, 18, 37, 29)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "broken XML", "line 1, column"),
        (b"<alto>\n<Layout>\n</alto>", "broken XML", "line 3, column"),
        (_alto(_line())[:-20], "broken XML", "line 2, column"),
        (b'<?xml version="1.0" encoding="UTF-8"?><alto>\xe9</alto>', "broken XML", "line 1, column"),
        (b'<!DOCTYPE alto [<!ENTITY a "b">]><alto>&a;</alto>', "broken XML", "entities"),
        (b'<mets xmlns="http://www.loc.gov/METS/"/>', "not ALTO XML", "<mets>"),
        (b"<PcGts/>", "not ALTO XML", "<PcGts>"),
    ],
)
def test_not_alto(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(LayoutError) as caught:
        alto.parse(data)
    assert caught.value.args[0] == reason and detail in caught.value.args[1]


# --- the pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("enlarged", [1.0, 2.0])
@pytest.mark.parametrize(("unit", "per_pixel"), [("pixel", 1.0), ("mm10", 25.4 * 10 / 300), ("inch1200", 4.0)])
def test_units_and_scaled_images(tmp_path: Path, unit: str, per_pixel: float, enlarged: float) -> None:
    """Scanned at 300 dpi, published at that or at twice the size: the same line, whatever it is told in."""
    write_image(tmp_path / "p.png", draw_page(enlarged))
    size = f'WIDTH="{WIDTH * per_pixel}" HEIGHT="{HEIGHT * per_pixel}"'
    (tmp_path / "p.xml").write_bytes(_alto(_line(scale=per_pixel), unit=unit, size=size))
    lines, aside = read(alto.units, tmp_path)
    assert not aside
    image = decode_grey(lines["p/l0"].image)
    assert image.shape == pytest.approx((45 * 1.12 * enlarged, (200 + 45 * 0.12) * enlarged), abs=3)
    cut = draw_page(enlarged)[int(25 * enlarged) : int(70 * enlarged), int(35 * enlarged) : int(235 * enlarged)]
    assert np.count_nonzero(image < 100) == pytest.approx(np.count_nonzero(cut < 100), rel=0.05)


@pytest.mark.parametrize(
    ("unit", "size", "reason"),
    [
        ("mm10", "", "page size unknown"),
        ("inch1200", 'WIDTH="0" HEIGHT="0"', "page size unknown"),
        ("pixel", f'WIDTH="{HEIGHT}" HEIGHT="{WIDTH}"', "page size does not fit image"),
        ("pixel", "", None),
        ("pixel", 'WIDTH="NaN" HEIGHT="10"', None),
    ],
)
def test_page_size(tmp_path: Path, unit: str, size: str, reason: str | None) -> None:
    lines, aside = read(alto.units, _tree(tmp_path, p=_alto(_line(0), _line(1), unit=unit, size=size or 'DPI="300"')))
    if reason is None:
        assert len(lines) == 2 and not aside
    else:
        assert {id_: item.reason for id_, item in aside.items()} == {"p": reason}
        assert aside["p"].detail.endswith("; 2 lines")


def test_height(tmp_path: Path) -> None:
    lines, _ = read(alto.units, _tree(tmp_path, p=_alto(_line())), height=32)
    assert lines["p/l0"].height == 32 == _shape(lines["p/l0"])[0]


def test_what_is_set_aside_of_a_page(tmp_path: Path) -> None:
    second = f'</TextBlock></PrintSpace></Page><Page ID="q"><PrintSpace><TextBlock>{_line(4)}'
    lines = [_line(0, "a\nb".replace("\n", "&#10;")), _line(1, ""), _line(2, "x", HPOS=""), _line(3, "ok", VPOS="125")]
    lines, aside = read(alto.units, _tree(tmp_path, p=_alto(*lines, second)))
    assert {id_: line.text for id_, line in lines.items()} == {"p/l3": "ok"}
    assert {id_: item.reason for id_, item in aside.items()} == {
        "p/l0": "text has several lines",
        "p/l1": "empty text",
        "p/l2": "no geometry",
        "p/l4": "line of a further page",
    }


def test_a_page_without_text_is_unlabelled(tmp_path: Path) -> None:
    lines, aside = read(alto.units, _tree(tmp_path, p=_alto(_line(0, ""), _line(1, None), _line(2, " "))))
    assert not aside and [line.text for line in lines.values()] == [None] * 3


def test_lines_without_a_name(tmp_path: Path) -> None:
    lines, _ = read(alto.units, _tree(tmp_path, p=_alto(_line(0, ID=""), _line(1, ID=""))))
    assert set(lines) == {"p/line-1", "p/line-2"}


# --- the files --------------------------------------------------------------------------------------------


def test_a_mixed_folder(tmp_path: Path) -> None:
    _tree(tmp_path, anna__p=_alto(_line()), bert__c__p=_alto(_line()), p=_alto(_line()))
    files = {
        "mets.xml": b"<mets/>", "anna/other.xml": b"<PcGts><Page imageFilename='p.png'/></PcGts>",
        "bert/cut.xml": _alto(_line())[:-30], "bert/no.xml": _alto(_line(0), _line(1), image="gone.jpg"),
        "bert/junk.xml": _alto(_line(), image="junk.png"), "bert/junk.png": b"junk",
        "bert/blank.xml": _alto(), ".hidden.xml": _alto(_line()), "notes.txt": b"x",
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    lines, aside = read(alto.units, tmp_path)
    assert {(id_, line.page, line.writer) for id_, line in lines.items()} == {
        ("anna/p/l0", "anna/p", "anna"),
        ("bert/c/p/l0", "bert/c/p", "bert/c"),
        ("p/l0", "p", None),
    }
    assert {id_: item.reason for id_, item in aside.items()} == {
        "mets.xml": "not ALTO XML",
        "anna/other.xml": "not ALTO XML",
        "bert/cut": "broken XML",
        "bert/no": "page image missing",
        "bert/junk": "page image unreadable",
        "bert/blank": "page without lines",
    }
    assert "'gone.jpg'" in aside["bert/no"].detail and aside["bert/no"].detail.endswith("; 2 lines")


@pytest.mark.parametrize(
    ("writer_from", "writers"),
    [("folder", {"anna", None}), ("page", {"anna/p", "q"}), ("none", {None})],
)
def test_writers(tmp_path: Path, writer_from: str, writers: set[str | None]) -> None:
    _tree(tmp_path, anna__p=_alto(_line()), q=_alto(_line(), image="q.png"))
    lines, _ = read(alto.units, tmp_path, writer_from=writer_from)
    assert {line.writer for line in lines.values()} == writers


@pytest.mark.parametrize(
    ("named", "xml", "image"),
    [
        ("p.png", "a/x.xml", "a/p.png"),
        ("P.PNG", "a/x.xml", "a/p.png"),
        ("scans/p.png", "a/x.xml", "a/scans/p.png"),
        ("scans/p.png", "a/alto/x.xml", "a/scans/p.png"),
        ("C:\\scans\\p.png", "a/x.xml", "a/p.png"),
        ("https://gallica.bnf.fr/ark:/12148/b/f1/p.png", "a/x.xml", "a/p.png"),
        ("p.tif", "a/x.xml", "a/p.png"),
        ("other.tif", "a/p.xml", "a/p.png"),
        ("", "a/p.xml", "a/P.JPG"),
        ("", "a/p.gt.xml", "a/p.png"),
        ("", "a/Ms.1.04.xml", "a/Ms.1.04.png"),
        ("p.png", "a/alto/p.xml", "a/p.png"),
    ],
)
def test_finding_images(tmp_path: Path, named: str, xml: str, image: str) -> None:
    write_image(tmp_path / image)
    (tmp_path / xml).parent.mkdir(exist_ok=True)
    (tmp_path / xml).write_bytes(_alto(_line(), image=named))
    lines, aside = read(alto.units, tmp_path)
    assert len(lines) == 1 and not aside
    assert {line.writer for line in lines.values()} == {"a"}
    if "alto/" not in xml or "/" not in named:  # that path starts above the folder of the one file
        lines, aside = read(alto.units, tmp_path / xml)
        assert len(lines) == 1 and not aside


def test_a_path_out_of_the_input_is_not_followed(tmp_path: Path) -> None:
    write_image(tmp_path / "secret" / "other.png")
    _tree(tmp_path / "in", p=_alto(_line(), image="../secret/other.png"))
    (tmp_path / "in" / "p.png").unlink()
    lines, aside = read(alto.units, tmp_path / "in")
    assert not lines and aside["p"].reason == "page image missing"


def test_images_elsewhere(tmp_path: Path) -> None:
    """A parallel folder first, for names repeat; else the only image of that name; several are not guessed."""
    for name in ("a/1.png", "b/1.png", "deep/er/2.png", "x/3.png", "y/3.png"):
        write_image(tmp_path / "scans" / name, draw_page() if name != "b/1.png" else 255 - draw_page())
    for folder, number in (("a", 1), ("b", 1), ("a", 2), ("b", 3)):
        path = tmp_path / "xml" / folder / f"{number}.alto.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_alto(_line(), image=f"{number}.png"))
    lines, aside = read(alto.units, tmp_path / "xml", images=str(tmp_path / "scans"))
    assert set(lines) == {"a/1/l0", "b/1/l0", "a/2/l0"}
    assert {id_: item.reason for id_, item in aside.items()} == {"b/3": "page image missing"}
    assert np.median(decode_grey(lines["a/1/l0"].image)) == 200 and np.median(decode_grey(lines["b/1/l0"].image)) == 55
    with pytest.raises(UserError, match="--images .*nowhere: no such folder"):
        read(alto.units, tmp_path / "xml", images=str(tmp_path / "nowhere"))


def test_several_readings(tmp_path: Path) -> None:
    image = {"image": "p.png"}
    _tree(tmp_path, a__p=_alto(_line(text="ꝑ"), **image), a__p_chocomufin=_alto(_line(text="per"), **image))
    with pytest.raises(UserError) as caught:
        read(alto.units, tmp_path)
    for part in ("a/p.xml", "a/p.chocomufin.xml", "--xml PATTERN", "'*.chocomufin.xml'", "'!*.chocomufin.xml'"):
        assert part in str(caught.value)
    for pattern, text in (("*.chocomufin.xml", "per"), ("!*.chocomufin.xml", "ꝑ"), ("a/*n.xml", "per")):
        lines, aside = read(alto.units, tmp_path, xml=pattern)
        assert {(id_, line.page, line.text) for id_, line in lines.items()} == {("a/p/l0", "a/p", text)} and not aside
    with pytest.raises(UserError, match=r"--xml '\*.gt.xml' leaves none of the 2 XML files \(a/p.chocomufin.xml"):
        read(alto.units, tmp_path, xml="*.gt.xml")


def test_pages_whose_short_names_are_the_same(tmp_path: Path) -> None:
    for name in ("letter.anna", "letter.bert"):
        write_image(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.xml").write_bytes(_alto(_line(), image=f"{name}.png"))
    assert set(read(alto.units, tmp_path)[0]) == {"letter.anna/l0", "letter.bert/l0"}


def test_inputs(tmp_path: Path, s3: str) -> None:
    _tree(tmp_path, a__p=_alto(_line()), b__p=_alto(_line()), b__q=_alto(_line(), image="q.png"))
    storage.upload_dir(tmp_path, f"{s3}/pages")
    for root in (str(tmp_path), f"{s3}/pages", tmp_path.as_uri()):
        assert set(read(alto.units, root)[0]) == {"a/p/l0", "b/p/l0", "b/q/l0"}
        assert set(read(alto.units, f"{root}/*/p.xml")[0]) == {"a/p/l0", "b/p/l0"}
        assert set(read(alto.units, f"{root}/b/*.xml")[0]) == {"p/l0", "q/l0"}
        assert set(read(alto.units, f"{root}/b/q.xml")[0]) == {"q/l0"}
        assert len(read(alto.units, f"{root}/a", images=f"{root}/b")[0]) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: not found"),
        ("empty", "no XML file"),
        ("empty/*.xml", "no XML file"),
        ("pages", r"none of 2 XML files is ALTO \(their roots: 2 <PcGts>\); try --format page"),
    ],
)
def test_unusable_inputs(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pages").mkdir()
    for number in (1, 2):
        (tmp_path / "pages" / f"{number}.xml").write_bytes(b"<PcGts/>")
    with pytest.raises(UserError, match=message) as caught:
        read(alto.units, tmp_path / name)
    assert str(caught.value).startswith(f"--input {tmp_path / name}: ")


# --- damaged and real files -------------------------------------------------------------------------------

_SHAPE = '<Shape><Polygon POINTS="35,{0} 235,{0} 235,{1} 35,{1}"/></Shape>'
_SOUND = _alto(
    _line(0, TEXTS[0], inside=_SHAPE.format(25, 70), BASELINE="35,60 120,61 235,60"),
    _line(1, TEXTS[1], inside=_SHAPE.format(85, 130)),
    _line(2, TEXTS[2], BASELINE="180"),
)


def test_damaged_files(tmp_path: Path) -> None:
    """Nothing but lines and reasons, and every line of the file among them."""
    _tree(tmp_path, p=_SOUND, sound=_alto(_line(), image="sound.png"))
    check_damaged(alto.units, tmp_path, _SOUND)


def test_damaged_real_files(tmp_path: Path, handwriting: Path) -> None:
    pages = sorted((handwriting / "pages" / "alto_testaments").glob("*-1.xml"))
    options: dict[str, Any] = {"writer": None, "split": None, "options": ImportOptions(height=16)}
    broken = tmp_path / "p.xml"
    for seed in range(FUZZ // 10):
        path = pages[seed % len(pages)]
        small = draw_page() if seed % 2 else np.zeros((728, 756), np.uint8)
        image = write_image(tmp_path / "p.png", small)
        data = damage(path.read_bytes(), seed)
        broken.write_bytes(data)
        check_accounts(list(PageUnit(str(broken), str(image), "alto", "p", **options).lines()), data)


@pytest.mark.parametrize(
    ("folder", "xml", "count", "writers"),
    [
        ("alto_testaments", None, 28, {None}),
        ("alto_htromance_ita", "*.chocomufin.xml", 40, {"bnf-it-1534"}),
        ("alto_htromance_ita", "!*.chocomufin.xml", 40, {"bnf-it-1534"}),
    ],
)
def test_real_pages(handwriting: Path, folder: str, xml: str | None, count: int, writers: set[str | None]) -> None:
    lines, aside = read(alto.units, handwriting / "pages" / folder, xml=xml)
    assert len(lines) == count and not aside
    assert {line.writer for line in lines.values()} == writers
    assert all(line.text and 40 <= line.height <= 280 and line.width >= 40 for line in lines.values())


def test_two_readings_of_a_page_must_be_chosen_from(handwriting: Path) -> None:
    with pytest.raises(UserError, match=r"several XML files.*--xml"):
        read(alto.units, handwriting / "pages" / "alto_htromance_ita")


def test_the_writer_is_in_the_pages_name(handwriting: Path) -> None:
    pages = handwriting / "pages" / "alto_testaments"
    lines, _ = read(alto.units, pages, writer_pattern=r"(will_[A-Z0-9]+_\d+)")
    assert {line.writer for line in lines.values()} == {"will_AD78_0002", "will_AD78_0003", "will_AD78_0009"}
    for pattern, message in (("(", "not a regular expression"), ("will", "has no group")):
        with pytest.raises(UserError, match=f"--writer-pattern .*{message}"):
            read(alto.units, pages, writer_pattern=pattern)
