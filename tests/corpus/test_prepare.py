"""From input to corpus, by function and by job, to disk and to S3."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from htr_ray import storage
from htr_ray.corpus.importers import ImportOptions
from htr_ray.corpus.prepare import prepare
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.schema import SPLITS
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]
REPOSITORY = Path(__file__).resolve().parents[2]


def _png(number: int) -> bytes:
    sink = io.BytesIO()
    array = np.full((16, 40), 255, np.uint8)
    array[4:12, 5 : 6 + number % 30] = number % 100
    Image.fromarray(array).save(sink, "PNG")
    return sink.getvalue()


def _table(path: Path, lines: int = 200, writers: int = 20, pages: int = 40, **columns: list[Any]) -> str:
    """Lines of several writers; 0 writers or pages: the column is missing."""
    data: dict[str, Any] = {
        "image": [{"bytes": _png(i), "path": f"{i}.png"} for i in range(lines)],
        "text": [f"line {i}" for i in range(lines)],
    }
    if writers:
        data["writer"] = [f"w{i % writers}" for i in range(lines)]
    if pages:
        data["page"] = [f"p{i % pages}" for i in range(lines)]
    pq.write_table(pa.table({**data, **columns}), path)
    return str(path)


def _sides(corpus: Corpus, column: str) -> dict[str, set[str]]:
    sides: dict[str, set[str]] = {}
    for split in SPLITS:
        for name in corpus.index(split, (column,))[column].to_pylist():
            sides.setdefault(name, set()).add(split)
    return sides


def _job(*arguments: str, cwd: Path | None = None) -> Any:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "jobs" / "prepare_data.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def test_no_writer_on_two_sides(tmp_path: Path) -> None:
    report = prepare("parquet", _table(tmp_path / "x.parquet"), str(tmp_path), "c")
    corpus = Corpus.open(str(tmp_path / "c"))
    assert report["split_by"] == corpus.info.split_by == "writer" and report["lines"] == 200
    assert all(len(sides) == 1 for sides in _sides(corpus, "writer").values())
    assert [row["lines"] for row in report["splits"].values()] == [160, 20, 20]
    assert report["writers_on_two_sides"] == [] and report["warnings"] == report["problems"] == []


def test_by_page_when_writers_are_not_known(tmp_path: Path) -> None:
    report = prepare("parquet", _table(tmp_path / "x.parquet", writers=0), str(tmp_path), "c")
    assert report["split_by"] == "page" and report["warnings"] == []
    assert all(len(sides) == 1 for sides in _sides(Corpus.open(str(tmp_path / "c")), "page").values())


def test_by_page_when_writers_are_too_few(tmp_path: Path) -> None:
    report = prepare("parquet", _table(tmp_path / "x.parquet", writers=2), str(tmp_path), "c")
    assert report["split_by"] == "page"
    assert "the same hand is on several sides" in report["warnings"][0]


def test_by_line_with_a_warning(tmp_path: Path) -> None:
    report = prepare("parquet", _table(tmp_path / "x.parquet", writers=2, pages=0), str(tmp_path), "c")
    assert report["split_by"] == "line" and report["splits"]["train"]["lines"] == 160
    assert "only 2 writers and 0 pages" in report["warnings"][0]


def test_lines_without_a_writer_among_others(tmp_path: Path) -> None:
    writers = [f"w{i % 20}" if i < 150 else None for i in range(200)]
    report = prepare("parquet", _table(tmp_path / "x.parquet", writer=writers), str(tmp_path), "c")
    corpus = Corpus.open(str(tmp_path / "c"))
    sides = _sides(corpus, "writer")
    sides.pop(None)  # type: ignore[call-overload]
    assert all(len(side) == 1 for side in sides.values())
    assert "50 lines have no writer" in report["warnings"][0]


def test_set_aside_is_counted_and_named(tmp_path: Path) -> None:
    images = [{"bytes": _png(i), "path": f"{i}.png"} for i in range(200)]
    images[3]["bytes"] = b"junk"
    texts: list[str | None] = [f"line {i}" for i in range(200)]
    texts[4], texts[5] = "", None
    path = _table(tmp_path / "x.parquet", image=images, text=texts)
    report = prepare("parquet", path, str(tmp_path), "c")
    assert report["set_aside"] == {"not an image": 1, "empty text": 1}
    assert report["set_aside_examples"] == {"not an image": ["3"], "empty text": ["4"]}
    assert report["lines"] == 198
    assert sum(row["labelled"] for row in report["splits"].values()) == 197
    assert Corpus.open(str(tmp_path / "c")).set_aside()["id"].to_pylist() == ["3", "4"]


def test_repeated_names_and_repeated_lines(tmp_path: Path) -> None:
    images = [{"bytes": _png(min(i, 190)), "path": "same.png"} for i in range(200)]
    texts = [f"line {min(i, 190)}" for i in range(200)]
    report = prepare("parquet", _table(tmp_path / "x.parquet", image=images, text=texts), str(tmp_path), "c")
    assert report["problems"] == []
    assert report["warnings"][-1].startswith("10 lines have the same image as one on another side")
    ids = [i for s in SPLITS for i in Corpus.open(str(tmp_path / "c")).index(s)["id"].to_pylist()]
    assert {"same", "same-2", "same-191"} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_same_line_twice(tmp_path: Path) -> None:
    images = [{"bytes": _png(i // 2), "path": f"{i // 2}.png"} for i in range(200)]
    texts = [f"line {i // 2}" for i in range(200)]
    report = prepare("parquet", _table(tmp_path / "x.parquet", image=images, text=texts), str(tmp_path), "c")
    assert report["lines"] == 100 and report["set_aside"] == {"same line twice": 100}


def test_characters_that_only_test_has(tmp_path: Path) -> None:
    path = _table(tmp_path / "x.parquet")
    prepare("parquet", path, str(tmp_path), "c")
    test = Corpus.open(str(tmp_path / "c")).index("test", ("id",))["id"].to_pylist()
    texts = [f"line {i}" + ("ÿÿ" if str(i) == test[0] else "") for i in range(200)]
    report = prepare("parquet", _table(tmp_path / "x.parquet", text=texts), str(tmp_path), "c")
    assert report["test_characters_unseen_in_train"] == {"ÿ": 2}
    info = Corpus.open(str(tmp_path / "c")).info
    assert info.alphabet_unseen == "ÿ" and "ÿ" not in info.alphabet


def test_same_input_and_seed_same_corpus(tmp_path: Path) -> None:
    path = _table(tmp_path / "x.parquet")
    indexes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare("parquet", path, str(tmp_path), name, seed=seed)
        corpus = Corpus.open(str(tmp_path / name))
        indexes.append([corpus.index(split).to_pylist() for split in SPLITS])
    assert indexes[0] == indexes[1] != indexes[2]


def test_a_corpus_may_be_made_from_itself(tmp_path: Path) -> None:
    prepare("parquet", _table(tmp_path / "x.parquet"), str(tmp_path), "c")
    before = _sides(Corpus.open(str(tmp_path / "c")), "id")
    report = prepare("parquet", str(tmp_path / "c"), str(tmp_path), "c")
    assert report["lines"] == 200 and set(_sides(Corpus.open(str(tmp_path / "c")), "id")) == set(before)


def test_the_report_of_a_new_corpus_is_that_of_its_files(tmp_path: Path) -> None:
    """Its images are not read again: their digests come with the lines."""
    images = [{"bytes": _png(i % 150), "path": f"{i}.png"} for i in range(200)]
    report = prepare("parquet", _table(tmp_path / "x.parquet", image=images), str(tmp_path), "c")
    assert report["duplicates"]["images"]["lines_on_two_sides"] > 0
    assert report == summarise(Corpus.open(str(tmp_path / "c")))


def test_the_same_line_twice(tmp_path: Path) -> None:
    """The same id, image and text: once. Another text or image: another line."""
    images = [{"bytes": _png(n), "path": "x.png"} for n in (1, 1, 1, 2, 1)]
    path = _table(tmp_path / "x.parquet", 5, 0, 0, image=images, text=["a", "a", "b", "a", None])
    report = prepare("parquet", path, str(tmp_path), "c")
    corpus = Corpus.open(str(tmp_path / "c"))
    assert report["set_aside"] == {"same line twice": 1}
    assert sorted(_sides(corpus, "id")) == ["x", "x-2", "x-3", "x-4"]


def test_a_corpus_mixes_all_of_its_input(tmp_path: Path) -> None:
    """More lines than the writer's own buffer and than a part, from a source that is in order."""
    lines = 20_000
    page = [f"p{i // 100}" for i in range(lines)]
    path = _table(
        tmp_path / "x.parquet", lines, writers=0, page=page, image=[{"bytes": _png(i % 9)} for i in range(lines)]
    )
    prepare("parquet", path, str(tmp_path), "c", split_by="line", shares=(0.9, 0.05, 0.05))
    corpus = Corpus.open(str(tmp_path / "c"))
    assert len(corpus.files("train")) == 2
    for start in (0, 9_000, 17_000):
        pages = corpus.index("train", ("page",))["page"].slice(start, 1000).to_pylist()
        numbers = [int(name[1:]) for name in pages]
        assert abs(np.mean(numbers) - 100) < 10 and len(set(numbers)) > 180


def test_unlabelled_lines_serve_pretraining(tmp_path: Path) -> None:
    for i in range(12):
        folder = tmp_path / "lines" / f"w{i % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(_png(i))
    report = prepare("pairs", str(tmp_path / "lines"), str(tmp_path), "c")
    assert report["split_by"] == "writer" and report["alphabet"] == ""
    assert any("pre-training only" in warning for warning in report["warnings"])


def test_too_few_lines(tmp_path: Path) -> None:
    path = _table(tmp_path / "x.parquet", 4, text=["a", "", "", "b"])
    with pytest.raises(UserError, match="2 usable lines, a corpus needs three; 2 were set aside: empty text"):
        prepare("parquet", path, str(tmp_path), "c")
    assert not storage.exists(str(tmp_path / "c" / "corpus.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "docx"}, "--format docx: unknown; use one of parquet, pairs"),
        ({"name": "../x"}, "--name '../x'"),
        ({"output": "nope://x"}, "nope://x: cannot be opened"),
        ({"output": "x.parquet"}, "a part of it is a file"),
    ],
)
def test_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    _table(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=message):
        prepare(**{"format": "parquet", "input": "x.parquet", "output": "out", "name": "c", **change})  # type: ignore[arg-type]


def test_a_column_of_splits_that_names_none_is_not_passed_over(tmp_path: Path) -> None:
    path = _table(tmp_path / "x.parquet", fold=[f"fold{i % 5}" for i in range(200)])
    options = ImportOptions(split_column="fold")
    with pytest.raises(UserError, match="--split-column fold: no line has a split there that is known"):
        prepare("parquet", path, str(tmp_path), "c", options=options)
    # Where the splits are asked to be others, the column does not matter.
    prepare("parquet", path, str(tmp_path), "c", options=options, split_by="line")
    path = _table(tmp_path / "x.parquet", fold=["train", "val", "test", "fold9"] * 50)
    report = prepare("parquet", path, str(tmp_path), "c", options=options)
    assert "50 lines are in no split of the source; they are in train" in report["warnings"]


def test_check_finds_what_is_wrong(tmp_path: Path) -> None:
    prepare("parquet", _table(tmp_path / "x.parquet"), str(tmp_path), "c")
    corpus = Corpus.open(str(tmp_path / "c"))
    assert summarise(corpus, decode=True)["problems"] == []
    part = Path(corpus.files("val")[0])
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[0]["image"] = b"junk"
    rows[1]["width"] = 41
    rows[2]["writer"] = corpus.index("train")["writer"][0].as_py()
    pq.write_table(pa.Table.from_pylist(rows[:-1], schema=table.schema), part)
    Path(corpus.files("test")[0]).unlink()
    problems = "\n".join(summarise(corpus, decode=True)["problems"])
    for expected in (
        "val: corpus.json counts 20 lines, the files hold 19",
        f"image of {rows[0]['id']}: not an image",
        f"image of {rows[1]['id']} is 40x16, not 41x16",
        "1 writers are on two sides",
        f"{Path(corpus.files('test')[0]).name}: not found",
    ):
        assert expected in problems


def test_real_corpus(handwriting: Path, tmp_path: Path) -> None:
    source = handwriting / "lines" / "testaments.parquet"
    report = prepare("parquet", str(source), str(tmp_path), "testaments")
    corpus = Corpus.open(str(tmp_path / "testaments"))
    assert report["lines"] == 3029 and report["set_aside"] == {} and report["problems"] == []
    assert sum(row["writers"] for row in report["splits"].values()) == 136
    assert abs(report["splits"]["train"]["share"] - 0.8) < 0.01
    given = Counter(row["bytes"] for row in pq.read_table(source, columns=["image"])["image"].to_pylist())
    kept = Counter(
        image
        for split in SPLITS
        for file in corpus.files(split)
        for image in pq.read_table(file, columns=["image"])["image"].to_pylist()
    )
    assert kept == given  # grey JPEG stays as it is, byte for byte


# --- the job ----------------------------------------------------------------------------------------------


def test_job_to_s3_and_back(tmp_path: Path, s3: str) -> None:
    storage.write_bytes(f"{s3}/raw/x.parquet", Path(_table(tmp_path / "x.parquet")).read_bytes())
    out = _job(
        "--format", "parquet", "--input", f"{s3}/raw/*.parquet", "--output", f"{s3}/corpora/", "--name", "c",
        "--licence", "CC0", "--json", str(tmp_path / "out.json"),
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    uri = f"{s3}/corpora/c"
    assert f"python jobs/full_grid.py name=c 'corpora=[{uri}]' preset=small" in out.stdout
    corpus = Corpus.open(uri)
    assert corpus.info.licence == "CC0" and corpus.info.source == f"{s3}/raw/*.parquet"
    assert all(len(sides) == 1 for sides in _sides(corpus, "writer").values())
    images = {
        row["id"]: row["image"]
        for split in SPLITS
        for file in corpus.files(split)
        for row in corpus.read_row_group(file, 0, ("id", "image")).to_pylist()
    }
    assert images == {str(i): _png(i) for i in range(200)}
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["asked"]["name"] == "c" and result["result"]["lines"] == 200 and result["seconds"] > 0
    rewrite = ["--format", "parquet", "--input", uri, "--output", f"{s3}/corpora", "--name", "c"]
    again = _job(*rewrite, "--seed", "1")
    assert again.returncode == 0, again.stderr
    assert Corpus.open(uri).info.seed == 1
    parts = [name for name in storage.walk(uri) if name.endswith(".parquet")]
    assert len(parts) == 3, "the old parts are removed"
    checked = _job("--check", "--output", f"{s3}/corpora", "--name", "c")
    assert checked.returncode == 0 and "Kept 200 lines, set aside 0." in checked.stdout


def test_job_runs_from_a_working_directory_without_installation(tmp_path: Path) -> None:
    """As after ``ray job submit --working-dir .``: htr_ray lies beside jobs/, and is found there."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "_root.py").write_bytes((REPOSITORY / "jobs" / "_root.py").read_bytes())
    (tmp_path / "htr_ray").mkdir()
    (tmp_path / "htr_ray" / "__init__.py").write_text("raise SystemExit('found beside jobs/')")
    # -S leaves out site-packages, where the editable installation is; it hides rich too, hence the order.
    script = tmp_path / "jobs" / "probe.py"
    script.write_text("import _root\nimport htr_ray")
    command = [sys.executable, "-S", str(script)]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "found beside jobs/" in out.stderr, out.stderr


def test_job_help_teaches() -> None:
    out = _job("--help")
    assert out.returncode == 0
    for text in ("NAME.gt.txt", "struct<bytes, path>", "corpus.json", "s3://bucket/corpora", "examples:"):
        assert text in out.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "parquet", "--input", "nowhere", "--output", "o", "--name", "c"], "nowhere: not found"),
        (["--format", "parquet"], "--input, --output, --name missing"),
        (["--check"], "--check needs"),
        (["--check", "--output", "o", "--name", "c"], "no corpus here"),
        (["--format", "xml"], "invalid choice"),
        (["--splits", "80,20"], "three positive numbers"),
    ],
)
def test_job_errors(tmp_path: Path, arguments: list[str], message: str) -> None:
    out = _job(*arguments, "--json", "result.json", cwd=tmp_path)
    assert out.returncode == 2 and message in out.stderr and "Traceback" not in out.stderr
    if (tmp_path / "result.json").exists():
        assert message in json.loads((tmp_path / "result.json").read_text())["error"]


def test_job_check_of_an_input_writes_nothing(tmp_path: Path) -> None:
    _table(tmp_path / "x.parquet")
    arguments = ["--check", "--format", "parquet", "--input", "x.parquet", "--output", "out", "--name", "c"]
    out = _job(*arguments, cwd=tmp_path)
    assert out.returncode == 0 and "(not written)" in out.stdout and "full_grid" not in out.stdout
    assert os.listdir(tmp_path) == ["x.parquet"]
