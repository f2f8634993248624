"""Whole transcriptions in this process: every kind of input, what is left behind, resuming, refusing."""

from __future__ import annotations

import io
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transcribe_helpers import draw, run, save_small, table, tsv, write_lines

from htr_ray.corpus.alphabet import Alphabet
from htr_ray.corpus.importers import ImportOptions, alto, page
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Line
from htr_ray.corpus.write import CorpusWriter
from htr_ray.errors import UserError
from htr_ray.model.files import load_recognizer
from htr_ray.stream.scale import scale_line
from htr_ray.train.metrics import count_errors
from htr_ray.transcribe.lines import Line as ReadLine
from htr_ray.transcribe.lines import Recipe
from htr_ray.transcribe.part import relative
from htr_ray.transcribe.source import recognise

ALTO_LINE = '<TextLine ID="l{0}" HPOS="0" VPOS="{1}" WIDTH="240" HEIGHT="48"><String CONTENT="{2}"/></TextLine>'
ALTO = (
    '<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description><MeasurementUnit>pixel</MeasurementUnit>'
    "<sourceImageInformation><fileName>{0}.png</fileName></sourceImageInformation></Description><Layout>"
    '<Page WIDTH="240" HEIGHT="96"><PrintSpace><TextBlock>{1}</TextBlock></PrintSpace></Page></Layout></alto>'
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small(tmp_path_factory.mktemp("model"))


def write_page(folder: Path, name: str, texts: list[str], image: bool = True) -> None:
    """An ALTO page of two lines at most, and its image."""
    import cv2
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(ALTO_LINE.format(i, 48 * i, text) for i, text in enumerate(texts))
    (folder / f"{name}.xml").write_text(ALTO.format(name, lines))
    if image:
        halves = [cv2.imdecode(np.frombuffer(draw(f"{name} {i}"), np.uint8), 0) for i in range(2)]
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", np.vstack(halves))[1].tobytes())


# --- line images --------------------------------------------------------------------------------------------


def test_line_images(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 10)
    (lines / "0003.png").write_bytes(b"no image")
    (lines / "0004.gt.txt").unlink()
    (lines / "0005.gt.txt").write_text("two\nlines")
    (lines / "orphan.gt.txt").write_text("x")
    told = run(model, lines, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [row["id"] for row in rows] == [f"{n:04d}" for n in range(10)] + ["orphan.gt.txt"]
    assert (told["lines"], told["read"], told["unreadable"]) == (11, 9, 2)
    assert told["unreadable_reasons"] == {"not an image": 1, "text without an image": 1}
    assert told["truths_left_out"] == 1 and "several lines" in rows[5]["detail"]
    assert [row["truth"] for row in rows[:6]] == ["line 0", "line 1", "line 2", "line 3", None, None]

    # The readings are those of the recognizer, line by line.
    recognizer = load_recognizer(model)
    read = [row for row in rows if row["text"] is not None]
    assert len(read) == 9
    from htr_ray.corpus.images import decode_grey

    for row in read:
        image = scale_line(decode_grey(Path(row["source"]).read_bytes()), 32, 1.0, 512)
        [reading] = recognizer.read(torch.from_numpy(image)[None, None], torch.tensor([image.shape[1]]))
        assert len(row["text"]) == len(row["scores"]) > 0
        if row["text"] == reading.text:  # bfloat16 on CPUs with AMX may decide a close call otherwise
            assert row["confidence"] == pytest.approx(reading.confidence, abs=0.05)
    exact = run(model, lines, tmp_path / "exact", precision="float32")
    assert exact["read"] == 9
    for row in table(tmp_path / "exact"):
        if row["text"] is not None:
            image = scale_line(decode_grey(Path(row["source"]).read_bytes()), 32, 1.0, 512)
            [reading] = recognizer.read(torch.from_numpy(image)[None, None], torch.tensor([image.shape[1]]))
            assert (row["text"], row["scores"]) == (reading.text, pytest.approx(reading.scores, abs=1e-3))

    # CER and WER are of the lines that have both a reading and a truth.
    pairs = [(row["truth"], row["text"]) for row in read if row["truth"] is not None]
    assert (told["cer"], told["wer"], told["lines_with_truth"]) == (
        count_errors(pairs).cer,
        count_errors(pairs).wer,
        len(pairs),
    )
    assert len(pairs) == 7

    # The tables for people say the same.
    people = tsv(tmp_path / "out")
    assert [(row["id"], row["text"], row["truth"]) for row in people] == [
        (row["id"], row["text"], row["truth"] or "") for row in read
    ]
    assert all(len(row["scores"].split()) == len(row["text"]) for row in people)
    assert [row["id"] for row in tsv(tmp_path / "out", "unreadable.tsv")] == ["0003", "orphan.gt.txt"]
    assert json.loads((tmp_path / "out/transcription.json").read_text()) == told


def test_rows_of_parquet_are_read_whatever_their_texts(model: str, tmp_path: Path) -> None:
    texts = [b"line 0", b" ", None, b"two\nlines", b"Stra\xdfe", b"no image", b"line 6"]
    images = [draw(f"line {n}") for n in range(7)]
    table_ = pa.table(
        {
            "image": pa.array([*images[:5], None, b"junk"], pa.binary()),
            "text": pa.array(texts, pa.binary()).view(pa.string()),
        }
    )
    pq.write_table(table_, tmp_path / "x.parquet")
    told = run(model, tmp_path / "x.parquet", tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [row["id"] for row in rows] == [f"x-{n:07d}" for n in range(7)]
    assert [row["text"] is not None for row in rows] == [True] * 5 + [False] * 2
    assert [row["truth"] for row in rows] == ["line 0", None, None, None, None, "no image", "line 6"]
    assert told["unreadable_reasons"] == {"no image data": 1, "not an image": 1}
    assert (told["truths_left_out"], told["lines_with_truth"]) == (2, 1)
    assert "several lines" in rows[3]["detail"] and "not UTF-8" in rows[4]["detail"]


def test_one_image_and_images_without_texts(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 3)
    alone = run(model, lines / "0001.png", tmp_path / "alone")
    assert (alone["read"], alone["lines_with_truth"]) == (1, 1)
    for text in lines.glob("*.txt"):
        text.unlink()
    told = run(model, lines, tmp_path / "out")
    assert told["read"] == 3 and "cer" not in told and "truth" not in tsv(tmp_path / "out")[0]


def test_batches_and_parts_change_nothing(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 23)
    usual = run(model, lines, tmp_path / "a", precision="float32")
    other = run(model, lines, tmp_path / "b", precision="float32", part_lines=5, batch_size=3)
    assert (usual["parts"], other["parts"]) == (1, 5)
    assert [(r["id"], r["text"]) for r in tsv(tmp_path / "a")] == [(r["id"], r["text"]) for r in tsv(tmp_path / "b")]


def test_a_table(model: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 3)
    (tmp_path / "in/list.csv").write_text("image,text\n0002.png,line 2\nnothing.png,x\n0001.png,\n")
    told = run(model, tmp_path / "in/list.csv", tmp_path / "out")
    assert (told["format"], told["read"], told["unreadable_reasons"]) == ("table", 2, {"file cannot be read": 1})


# --- a corpus -----------------------------------------------------------------------------------------------


def test_a_corpus_and_its_splits(model: str, sample_corpus: str, tmp_path: Path) -> None:
    info = Corpus.open(sample_corpus).info
    told = run(model, sample_corpus, tmp_path / "all")
    assert told["read"] == sum(info.counts[split].lines for split in SPLITS) == 240
    assert {name: rate["lines"] for name, rate in told["splits"].items()} == {
        split: info.counts[split].lines for split in SPLITS
    }
    rows = table(tmp_path / "all")
    for split in SPLITS:
        pairs = [(row["truth"], row["text"]) for row in rows if row["split"] == split]
        assert told["splits"][split]["cer"] == count_errors(pairs).cer
    test = run(model, sample_corpus, tmp_path / "test", splits=("test",))
    assert test["splits"] == {"test": told["splits"]["test"]} and test["cer"] == test["splits"]["test"]["cer"]
    with pytest.raises(UserError, match="--split: only a corpus has splits"):
        run(model, write_lines(tmp_path / "in", 1), tmp_path / "none", splits=("test",))


def test_a_damaged_corpus_is_counted_to_the_line(model: str, sample_corpus: str, tmp_path: Path) -> None:
    shutil.copytree(sample_corpus, tmp_path / "corpus")
    part = next((tmp_path / "corpus/train").iterdir())
    data = bytearray(part.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    part.write_bytes(data)
    told = run(model, tmp_path / "corpus", tmp_path / "out")
    assert told["lines"] == 240 and told["read"] + told["unreadable"] == 240 and told["unreadable"] > 0


def test_right_to_left(tmp_path: Path) -> None:
    model = save_small(tmp_path / "model", "אבגדהוזחטי 0123456789()", "rtl")
    lines = write_lines(tmp_path / "in", 4)
    (lines / "0000.gt.txt").write_text("אבג (12)")
    write_page(tmp_path / "pages", "p", ["אבג", "דה 12"])
    assert run(model, lines, tmp_path / "out", precision="float32")["model"]["direction"] == "rtl"
    recognizer = load_recognizer(model)
    from htr_ray.corpus.images import decode_grey

    for row in table(tmp_path / "out"):
        image = scale_line(decode_grey(Path(row["source"]).read_bytes()), 32, 1.0, 512)
        [reading] = recognizer.read(torch.from_numpy(image)[None, None], torch.tensor([image.shape[1]]))
        assert row["text"] == reading.text and len(row["scores"]) == len(row["text"])
    assert any("\u05d0" <= letter <= "\u05ea" for row in table(tmp_path / "out") for letter in row["text"])
    # Logical order in the XML, as everywhere.
    run(model, tmp_path / "pages", tmp_path / "read")
    layout = alto.parse((tmp_path / "read/pages/p.xml").read_bytes())
    assert [line.text for line in layout.lines] == [row["text"].rstrip() or None for row in table(tmp_path / "read")]


# --- pages --------------------------------------------------------------------------------------------------


def test_pages(model: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_page(source / "a", "p1", ["one", ""])
    write_page(source / "a", "p2", ["two"], image=False)
    write_page(source / "b/alto", "p3", [])
    write_page(source / "b", "p4", ["ok"])
    (source / "a/broken.xml").write_text("<alto><Layout>")
    (source / "a/bomb.xml").write_text(
        '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY f SYSTEM "file:///etc/passwd">]>' + ALTO.format("p4", "&f;&a;")
    )
    (source / "other.xml").write_text("<html/>")
    told = run(model, source, tmp_path / "out")
    assert told["format"] == "alto"
    assert told["lines"] == told["read"] + told["unreadable"] == 8
    assert told["read"] == 3  # also the line without a text: it is to be read, not to be learnt from
    assert told["unreadable_reasons"] == {
        "page image missing": 1,
        "broken XML": 2,
        "not ALTO XML": 1,
        "page without lines": 1,
    }
    assert told["lines_with_truth"] == 2
    pages = tmp_path / "out/pages"
    names = {str(path.relative_to(pages)) for path in pages.rglob("*") if path.is_file()}
    assert names == {"a/p1.xml", "a/p2.xml", "b/alto/p3.xml", "b/p4.xml"} and told["pages_written"] == 4
    # Nothing was read of these two: they are as they were.
    for name in ("a/p2.xml", "b/alto/p3.xml"):
        assert (pages / name).read_bytes() == (source / name).read_bytes()
    rows = {row["id"]: row for row in table(tmp_path / "out")}
    written = [line.text for line in alto.parse((pages / "a/p1.xml").read_bytes()).lines]
    assert written == [rows["a/p1/l0"]["text"].rstrip() or None, rows["a/p1/l1"]["text"].rstrip() or None]
    assert rows["a/p2/l0"]["reason"] == "page image missing" and rows["a/p2/l0"]["page"] == "a/p2"


def test_real_pages(model: str, handwriting: Path, tmp_path: Path) -> None:
    pages = handwriting / "pages"
    told = run(model, pages / "page2019_iforal", tmp_path / "page")
    assert (told["format"], told["lines"], told["read"], told["pages_written"]) == ("page", 219, 219, 2)
    assert told["lines_with_truth"] == 219
    read = tmp_path / "page/pages/foral_de_abrantes_1217/1.xml"
    texts = [line.text for line in page.parse(read.read_bytes()).lines]
    rows = [row for row in table(tmp_path / "page") if row["page"] == "foral_de_abrantes_1217/1"]
    assert texts == [row["text"].strip() or None for row in rows]

    italian = pages / "alto_htromance_ita"
    with pytest.raises(UserError, match="choose with --xml"):
        run(model, italian, tmp_path / "ita")
    told = run(model, italian, tmp_path / "ita", options=ImportOptions(xml="!*.chocomufin.xml"))
    assert (told["read"], told["pages_written"]) == (40, 2)
    one = italian / "bnf-it-1534/btv1b52504356m_f100.xml"
    alone = run(model, one, tmp_path / "one")
    assert (alone["format"], alone["read"]) == ("alto", 19)
    same = (tmp_path / "ita/pages/bnf-it-1534" / one.name).read_bytes()
    assert (tmp_path / "one/pages" / one.name).read_bytes() == same
    pattern = run(model, f"{pages}/alto_testaments/*9-1.xml", tmp_path / "pattern")
    assert (pattern["format"], pattern["read"]) == ("alto", 4)


def test_old_texts_can_be_kept(model: str, tmp_path: Path) -> None:
    write_page(tmp_path / "in", "p", ["kept", ""])
    run(model, tmp_path / "in", tmp_path / "out", existing="keep")
    lines = alto.parse((tmp_path / "out/pages/p.xml").read_bytes()).lines
    assert lines[0].text == "kept" and table(tmp_path / "out")[0]["text"] != "kept"
    assert lines[1].text == table(tmp_path / "out")[1]["text"].rstrip()


# --- again --------------------------------------------------------------------------------------------------


def test_the_same_again_and_more_of_it(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 8)
    first = run(model, lines, tmp_path / "out", part_lines=4)
    said = io.StringIO()
    assert run(model, lines, tmp_path / "out", part_lines=4, said=said) == first
    assert "finished already" in said.getvalue()
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/lines").iterdir()}
    # A part that is gone is read again, the others stay; so does what a longer input begins with.
    gone = sorted(parts)[1]
    (tmp_path / "out/lines" / gone).unlink()
    (tmp_path / "out/lines/.part-x.parquet.0badcafe.tmp").write_bytes(b"left by a killed process")
    write_lines(lines, 11)
    again = run(model, lines, tmp_path / "out", part_lines=4)
    assert (again["lines"], again["resumed_lines"], again["parts"]) == (11, 4, 3)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/lines").iterdir()}
    assert {name: now[name] for name in parts if name != gone} == {n: t for n, t in parts.items() if n != gone}
    assert len(now) == 3 and [row["id"] for row in tsv(tmp_path / "out")] == [f"{n:04d}" for n in range(11)]
    assert again["lines_with_truth"] == 11  # counted over all runs
    # What left the input leaves the output.
    for name in ("0008", "0009", "0010"):
        (lines / f"{name}.png").unlink()
        (lines / f"{name}.gt.txt").unlink()
    less = run(model, lines, tmp_path / "out", part_lines=4)
    assert (less["lines"], less["parts"]) == (8, 2) and len(tsv(tmp_path / "out")) == 8


def test_a_file_that_is_there_now_is_read_by_the_same_again(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 4)
    whole = (lines / "0001.png").read_bytes()
    (lines / "0001.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (lines / "0002.png").write_bytes(b"no image")
    first = run(model, lines, tmp_path / "out", part_lines=1)
    assert first["unreadable_reasons"] == {"git LFS pointer": 1, "not an image": 1}
    (lines / "0001.png").write_bytes(whole)
    again = run(model, lines, tmp_path / "out", part_lines=1)
    assert (again["read"], again["unreadable_reasons"]) == (3, {"not an image": 1})
    assert again["resumed_lines"] == 3


def test_truths_are_compared_in_the_form_of_the_alphabet() -> None:
    """A corpus that was prepared as NFD has readings as such."""
    assert Alphabet("abc e\u0301").form == "NFD" and Alphabet("abc \u00e9").form == Alphabet("abc").form == "NFC"
    assert Alphabet("ce\u0301\u0327").form == "NFD", "an alphabet has its marks in another order than texts"
    assert Alphabet("\u00e9q\u0303").form == "NFC", "marks that nothing else can say are in NFC, too"
    text = unicodedata.normalize("NFD", "ma ch\u00e8re amie")
    line = Recipe(32, 1.0, 512, Alphabet(text).form, 64).tell(ReadLine("a", "a"), unicodedata.normalize("NFC", text))
    assert line.truth == text


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("/in/A/1.xml", "/in", "A/1.xml"),
        ("/in/A/1.xml", "/in/", "A/1.xml"),
        ("s3://b/in/A/1.xml?region=x", "s3://b/in?region=x", "A/1.xml"),
        ("/other/1.xml", "/in", "1.xml"),
    ],
)
def test_paths_in_the_input(uri: str, base: str, expected: str) -> None:
    assert relative(uri, base) == expected


def test_another_request_is_refused(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 2)
    (tmp_path / "text.txt").write_text("line 1\nline 2\n")
    run(model, lines, tmp_path / "out")
    other = save_small(tmp_path / "other", seed=1)
    for asked, named in (
        ({"model": other}, "model digest was"),
        ({"input": write_lines(tmp_path / "in2", 2)}, "input was"),
        ({"beam": 4}, "settings beam was None, now 4"),
        ({"language_text": str(tmp_path / "text.txt")}, "language_digest was None"),
        ({"options": ImportOptions(normalisation="NFD")}, "options normalisation was None, now 'NFD'"),
    ):
        arguments: dict[str, Any] = {"model": model, "input": lines, "output": tmp_path / "out", **asked}
        with pytest.raises(UserError, match="holds a transcription of another request") as caught:
            run(**arguments)
        assert named in str(caught.value)
    # Where the same model lies, and how fast it is to read, is no matter.
    moved = shutil.copytree(model, tmp_path / "moved")
    assert run(str(moved), lines, tmp_path / "out", batch_size=3)["read"] == 2


@pytest.mark.parametrize(
    ("input", "output"), [("in", "in/out"), ("in", "in"), ("out/pages", "out"), ("out/lines/x", "out")]
)
def test_input_and_output_are_not_one(model: str, tmp_path: Path, input: str, output: str) -> None:
    write_lines(tmp_path / input, 1)
    with pytest.raises(UserError, match="choose an --output beside the input"):
        run(model, tmp_path / input, tmp_path / output)


def test_what_cannot_be_told_is_asked(model: str, tmp_path: Path) -> None:
    def error(place: Path, **more: Any) -> str:
        with pytest.raises(UserError) as caught:
            run(model, place, tmp_path / "out", **more)
        return str(caught.value)

    assert "not found" in error(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "there is: nothing" in error(tmp_path / "empty")
    write_page(tmp_path / "both", "p", ["x"])
    (tmp_path / "both/q.xml").write_text("<PcGts/>")
    assert "choose with --format alto or --format page" in error(tmp_path / "both")
    assert "--format nonsense: unknown; use one of corpus, parquet, pairs" in error(
        tmp_path / "both", format="nonsense"
    )
    assert "no corpus here" in error(tmp_path / "both", format="corpus")
    # An answer is taken for a pattern, too.
    write_page(tmp_path / "two", "p", ["x"])
    (tmp_path / "two/p.other.xml").write_text((tmp_path / "two/p.xml").read_text())
    assert "choose with --xml" in error(tmp_path / "two/*.xml")
    assert recognise(str(tmp_path / "two/*.xml"), ImportOptions(xml="!*.other.xml")) == "alto"
    (tmp_path / "notes.txt").write_text("x")
    assert "not a file that can be read" in error(tmp_path / "notes.txt")
    assert not (tmp_path / "out").exists()


# --- language models ----------------------------------------------------------------------------------------


def test_language_models(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 3)
    text = tmp_path / "text.txt"
    text.write_text("\ufeffline 1\n\n  line   2\nLine three\n")
    plain = run(model, lines, tmp_path / "plain", precision="float32")
    for key in ("language_text", "word_list"):
        told = run(model, lines, tmp_path / key, precision="float32", **{key: str(text)})
        assert told["read"] == 3 and told["language_digest"]
        assert tsv(tmp_path / key) != tsv(tmp_path / "plain"), "the language model had no say"
    assert plain["language_digest"] is None
    with pytest.raises(UserError, match="give one of them"):
        run(model, lines, tmp_path / "x", language_text=str(text), word_list=str(text))
    with pytest.raises(UserError, match="language_text=.*not found"):
        run(model, lines, tmp_path / "x", language_text=str(tmp_path / "nothing.txt"))
    text.write_bytes(b"\xff\xfea")
    with pytest.raises(UserError, match="not UTF-8"):
        run(model, lines, tmp_path / "x", word_list=str(text))
    text.write_text("\n")
    with pytest.raises(UserError, match="language_text=.*no text to train it from"):
        run(model, lines, tmp_path / "x", language_text=str(text))


def test_texts_of_a_corpus_that_no_line_can_have(model: str, tmp_path: Path) -> None:
    with CorpusWriter(str(tmp_path / "c"), "c") as writer:
        for number, text in enumerate(["a", None, "b"]):
            writer.add(Line(f"l{number}", draw("a"), 240, 48, text), SPLITS[number])
    told = run(model, tmp_path / "c", tmp_path / "out")
    assert (told["read"], told["lines_with_truth"], sorted(told["splits"])) == (3, 2, ["test", "train"])
