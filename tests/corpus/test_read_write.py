"""The corpus on disk: what is written is read, and never half of it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htr_ray import storage
from htr_ray.corpus.images import encode_png
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import ROW_GROUP_LINES, SCHEMA, SPLITS, Line
from htr_ray.corpus.write import CorpusWriter
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]
IMAGE = encode_png(np.full((8, 20), 255, np.uint8))


def _line(number: int, **fields: object) -> Line:
    values = {"text": f"line {number}", "writer": f"w{number % 7}", "page": None, **fields}
    return Line(f"l{number}", IMAGE, 20, 8, **values)  # type: ignore[arg-type]


def _write(uri: str, count: int = 30, first: int = 0, **about: object) -> None:
    with CorpusWriter(uri, "c", **about) as writer:  # type: ignore[arg-type]
        for i in range(first, first + count):
            writer.add(_line(i), SPLITS[max(0, i % 10 - 7)])


def _ids(corpus: Corpus) -> set[str]:
    return {id_ for split in SPLITS for id_ in corpus.index(split, ("id",))["id"].to_pylist()}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(max_size=50),
            st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
            st.none() | st.text("ab", max_size=2),
            st.sampled_from(SPLITS),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    uri = str(tmp_path_factory.mktemp("c"))
    lines = {
        f"l{i}": (Line(f"l{i}", image, i, 1, text, writer, writer), split)
        for i, (image, text, writer, split) in enumerate(rows)
    }
    lines["first"] = Line("first", b"", 1, 1), "train"
    with CorpusWriter(uri, "c") as writer:
        for line, split in lines.values():
            writer.add(line, split)
    corpus = Corpus.open(uri)
    got = {}
    for split in SPLITS:
        place = corpus.index(split, ("id", "text"))
        files = corpus.files(split)
        for entry in place.to_pylist():
            group = corpus.read_row_group(files[entry["file"]], entry["row_group"])
            row = group.slice(entry["row"], 1).to_pylist()[0]
            assert row["id"] == entry["id"] and row["text"] == entry["text"]
            got[row["id"]] = (Line(**row), split)
    assert got == lines
    seen = {c for line, split in lines.values() if split != "test" for c in line.text or ""}
    test = {c for line, split in lines.values() if split == "test" for c in line.text or ""}
    assert corpus.info.alphabet == "".join(sorted(seen))
    assert corpus.info.alphabet_unseen == "".join(sorted(test - seen))


def test_files_match_the_design(tmp_path: Path) -> None:
    _write(str(tmp_path / "c"), 5000, licence="CC0", source="here", citation="me")
    corpus = Corpus.open(str(tmp_path / "c"))
    info = json.loads((tmp_path / "c" / "corpus.json").read_text())
    assert (info["name"], info["licence"], info["source"], info["schema_version"]) == ("c", "CC0", "here", 1)
    assert info["counts"]["train"] == {"lines": 4000, "labelled": 4000, "writers": 7}
    assert corpus.info.counts["val"]["lines"] == 500
    for split in SPLITS:
        for file in corpus.files(split):
            part = pq.ParquetFile(file)
            assert part.schema_arrow.equals(SCHEMA)
            sizes = [part.metadata.row_group(i).num_rows for i in range(part.metadata.num_row_groups)]
            assert all(n == ROW_GROUP_LINES for n in sizes[:-1])
    assert all(name.startswith("part-") for split in SPLITS for name in os.listdir(tmp_path / "c" / split))


def test_row_groups_mix_writers(tmp_path: Path) -> None:
    """Lines come writer by writer, as in any archive."""
    with CorpusWriter(str(tmp_path), "c") as writer:
        for i in range(2048):
            writer.add(_line(i, writer=f"w{i // 256}"), "train")
    corpus = Corpus.open(str(tmp_path))
    for group in range(8):
        table = corpus.read_row_group(corpus.files("train")[0], group, ("writer",))
        assert len(set(table["writer"].to_pylist())) == 8


def test_many_row_groups_make_several_parts(tmp_path: Path) -> None:
    count = 64 * ROW_GROUP_LINES + 300
    with CorpusWriter(str(tmp_path), "c") as writer:
        for i in range(count):
            writer.add(_line(i), "train")
    corpus = Corpus.open(str(tmp_path))
    index = corpus.index("train")
    assert len(corpus.files("train")) == 2
    assert set(index["file"].to_pylist()) == {0, 1}
    assert len(set(index["id"].to_pylist())) == count
    last = index.slice(count - 1, 1).to_pylist()[0]
    row = corpus.read_row_group(corpus.files("train")[last["file"]], last["row_group"], ("id",))
    assert row["id"][last["row"]].as_py() == last["id"]


def test_seed_fixes_the_order(tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        _write(str(tmp_path / name), seed=seed)
        orders.append(Corpus.open(str(tmp_path / name)).index("train")["id"].to_pylist())
    assert orders[0] == orders[1] != orders[2]


def test_rewrite_replaces_and_cleans_up(tmp_path: Path) -> None:
    uri = str(tmp_path)
    _write(uri, 30)
    (tmp_path / "train" / "part-0badc0de-00000.parquet").write_bytes(b"left by an interrupted run")
    (tmp_path / "train" / ".part-0badc0de-00001.parquet.ab.tmp").write_bytes(b"this too")
    (tmp_path / "train" / "part-00000.parquet").write_bytes(b"not ours")
    old = Corpus.open(uri)
    _write(uri, 40, first=100)
    assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(100, 140)}
    assert sorted(os.listdir(tmp_path / "train")) == sorted(
        [*(Path(f).name for f in Corpus.open(uri).files("train")), "part-00000.parquet"]
    )
    with pytest.raises(UserError, match="rewritten while it was read"):
        old.index("train")


def test_set_aside(tmp_path: Path) -> None:
    with CorpusWriter(str(tmp_path), "c") as writer:
        writer.add(_line(0), "train")
        writer.set_aside("empty text", "x")
        writer.set_aside("empty text", "y", "blank")
        writer.set_aside("not an image", "z")
    corpus = Corpus.open(str(tmp_path))
    assert corpus.info.set_aside == {"empty text": 2, "not an image": 1}
    assert corpus.set_aside().to_pylist()[1] == {"id": "y", "reason": "empty text", "detail": "blank"}
    _write(str(tmp_path))
    assert Corpus.open(str(tmp_path)).set_aside().num_rows == 0
    assert not list(tmp_path.glob("set_aside*"))


def test_many_lines_at_once(tmp_path: Path) -> None:
    """Parts are written side by side; their rows, order and counts are as asked."""
    sizes = {"train": 2 * 64 * ROW_GROUP_LINES + 5, "test": 300}
    asked = []

    def read(split: str, start: int, stop: int) -> pa.Table:
        asked.append((split, start, stop))
        lines = [_line(i, text=f"{split} {i}", writer=f"{split}{i % 5}") for i in range(start, stop)]
        return pa.Table.from_pylist([asdict(line) for line in lines], schema=SCHEMA)

    with CorpusWriter(str(tmp_path), "c") as writer:
        writer.add_all(sizes, read)  # type: ignore[arg-type]
    corpus = Corpus.open(str(tmp_path))
    assert [len(corpus.files(split)) for split in SPLITS] == [3, 0, 1]
    for split, size in sizes.items():
        assert corpus.index(split)["id"].to_pylist() == [f"l{i}" for i in range(size)]  # type: ignore[arg-type]
        assert corpus.info.counts[split].model_dump() == {"lines": size, "labelled": size, "writers": 5}  # type: ignore[index]
    assert all(stop - start <= ROW_GROUP_LINES for _, start, stop in asked) and len(asked) == len(set(asked))
    assert set(corpus.info.alphabet) == set("train 0123456789") and corpus.info.alphabet_unseen == "es"


def test_a_failure_among_many_parts_leaves_the_old_corpus(tmp_path: Path) -> None:
    uri = str(tmp_path)
    _write(uri)
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())

    def read(split: str, start: int, stop: int) -> pa.Table:
        if start >= 20_000:
            raise RuntimeError
        return pa.Table.from_pylist([asdict(_line(i)) for i in range(start, stop)], schema=SCHEMA)

    with pytest.raises(RuntimeError), CorpusWriter(uri, "c") as writer:
        writer.add_all({"train": 60_000}, read)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before
    assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(30)}


def test_an_exception_leaves_the_old_corpus(tmp_path: Path) -> None:
    uri = str(tmp_path)
    _write(uri)
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(RuntimeError), CorpusWriter(uri, "c") as writer:
        for i in range(10_000):
            writer.add(_line(i), "train")
        raise RuntimeError
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before
    assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(30)}


def test_a_full_disk_leaves_the_old_corpus(tmp_path: Path) -> None:
    """A limit on file size stands in for the disk: it fails in the same place."""
    uri = str(tmp_path)
    _write(uri)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UserError, match=f"{uri}/train/part-.*full"), CorpusWriter(uri, "c") as writer:
            for i in range(20_000):
                writer.add(_line(i), "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(30)}
    assert len(os.listdir(tmp_path / "train")) == 1


def test_an_exception_leaves_the_old_corpus_on_s3(s3: str) -> None:
    uri = f"{s3}/c"
    _write(uri)
    before = storage.walk(uri)
    with pytest.raises(RuntimeError), CorpusWriter(uri, "c") as writer:
        for i in range(10_000):
            writer.add(_line(i), "train")
        raise RuntimeError
    assert storage.walk(uri) == before
    assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(30)}


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_read_write import _line
from htr_ray.corpus.write import CorpusWriter
with CorpusWriter({uri!r}, "c") as writer:
    for i in range(10**9):
        writer.add(_line(i), "train")
        if i == 20_000:
            print("deep in it", flush=True)
"""


@pytest.mark.parametrize("old", [True, False])
def test_a_killed_writer_leaves_the_old_corpus_or_none(tmp_path: Path, old: bool) -> None:
    uri = str(tmp_path)
    if old:
        _write(uri)
    code = KILLED.format(tests=str(Path(__file__).parent), uri=uri)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"deep in it\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(os.listdir(tmp_path / "train")) > old
    if old:
        assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(30)}
    else:
        with pytest.raises(UserError, match="no corpus here"):
            Corpus.open(uri)
    _write(uri, 40)
    assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(40)}
    assert len(os.listdir(tmp_path / "train")) == 1


def test_readers_during_rewrites_see_one_or_the_other(tmp_path: Path) -> None:
    uri = str(tmp_path)
    _write(uri, 30)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_read_write import _write\n"
        f"for i in range(12): _write({uri!r}, 30, first=30 * (i % 2))"
    )
    whole = [{f"l{i}" for i in range(first, first + 30)} for first in (0, 30)]
    process = subprocess.Popen([sys.executable, "-c", code])
    seen = 0
    while process.poll() is None:
        try:
            # One or the other whole corpus, or word that it went away meanwhile.
            assert _ids(Corpus.open(uri)) in whole
            seen += 1
        except UserError as error:
            assert "rewritten while it was read" in str(error)
        time.sleep(0.001)
    assert process.returncode == 0 and seen


def test_two_writers_at_once(tmp_path: Path) -> None:
    """The later commit finds its parts removed and says so; the corpus stays whole."""
    uri = str(tmp_path)
    slow = CorpusWriter(uri, "slow")
    with pytest.raises(UserError, match="another job wrote this corpus"), slow as writer:
        for i in range(64 * ROW_GROUP_LINES):
            writer.add(_line(i), "train")
        assert os.listdir(tmp_path / "train")
        _write(uri, 30)
    assert _ids(Corpus.open(uri)) == {f"l{i}" for i in range(30)}


def test_opening_what_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.json is missing.*jobs/prepare_data.py"):
        Corpus.open(str(tmp_path))
    with pytest.raises(UserError, match="no corpus here"):
        Corpus.open(str(tmp_path / "nowhere"))
    info = tmp_path / "corpus.json"
    for content, message in (
        ("{", "not valid JSON"),
        ("[]", "is this a corpus"),
        ('{"name": "x"}', "counts: Field required"),
        ('{"schema_version": 99}', "update htr-ray"),
    ):
        info.write_text(content)
        with pytest.raises(UserError, match=message):
            Corpus.open(str(tmp_path))


def test_wrong_split_and_column(tmp_path: Path) -> None:
    _write(str(tmp_path))
    corpus = Corpus.open(str(tmp_path))
    with pytest.raises(UserError, match="split 'dev': use one of train, val, test"):
        corpus.files("dev")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"columns: no \['txt'\]"):
        corpus.index("train", ("id", "txt"))


def test_damaged_part(tmp_path: Path) -> None:
    _write(str(tmp_path))
    corpus = Corpus.open(str(tmp_path))
    part = Path(corpus.files("train")[0])
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{part.name}: damaged"):
        corpus.index("train")


def test_empty_split_and_empty_corpus(tmp_path: Path) -> None:
    with CorpusWriter(str(tmp_path), "c") as writer:
        writer.add(_line(0), "train")
    index = Corpus.open(str(tmp_path)).index("test")
    assert index.num_rows == 0
    assert index.column_names == ["id", "width", "text", "writer", "file", "row_group", "row"]
    with pytest.raises(UserError, match="no line for train"), CorpusWriter(str(tmp_path / "x"), "x"):
        pass
    assert not storage.exists(str(tmp_path / "x" / "corpus.json"))
