"""Input, model and output in S3: nothing but URIs differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transcribe_helpers import run, save_small, table, tsv, write_lines

from htr_ray import storage
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]


def test_lines_and_pages_in_s3(handwriting: Path, s3: str, tmp_path: Path) -> None:
    storage.upload_dir(save_small(tmp_path / "model"), f"{s3}/model")
    storage.upload_dir(write_lines(tmp_path / "in", 9), f"{s3}/in")
    local = run(str(tmp_path / "model"), tmp_path / "in", tmp_path / "out", part_lines=4)
    told = run(f"{s3}/model", f"{s3}/in", f"{s3}/out", part_lines=4)
    for key in ("model", "lines", "read", "cer", "wer", "parts", "format"):
        if key == "model":
            assert told[key]["digest"] == local[key]["digest"]
        else:
            assert told[key] == local[key]
    assert tsv(f"{s3}/out") == tsv(tmp_path / "out")
    assert table(f"{s3}/out")[0]["source"] == f"{s3}/in/0000.png"
    # Again, after a part was lost.
    gone = storage.listdir(f"{s3}/out/lines")[1]
    storage.delete_file(f"{s3}/out/lines/{gone}")
    again = run(f"{s3}/model", f"{s3}/in", f"{s3}/out", part_lines=4)
    assert (again["resumed_lines"], again["lines"], again["cer"]) == (5, 9, told["cer"])

    storage.upload_dir(handwriting / "pages/alto_testaments", f"{s3}/pages")
    pages = run(f"{s3}/model", f"{s3}/pages", f"{s3}/read")
    assert (pages["format"], pages["read"], pages["pages_written"]) == ("alto", 28, 3)
    assert storage.walk(f"{s3}/read/pages") == [name for name in storage.walk(f"{s3}/pages") if name.endswith(".xml")]


def test_a_store_that_fails_now_and_then(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_small(tmp_path / "model")
    storage.upload_dir(write_lines(tmp_path / "in", 6), f"{s3}/in")
    read, opened, failed = storage.read_bytes, storage.open_output, []

    def fails(uri: str, kind: str, often: int) -> None:
        if uri.endswith(kind) and failed.count(kind) < often:
            failed.append(kind)
            raise storage.Unavailable(f"{uri}: the storage does not answer")

    often = 2

    def unreliable_read(uri: str) -> bytes:
        fails(uri, ".png", often)
        return read(uri)

    def unreliable_open(uri: str) -> Any:
        fails(uri, ".parquet", 1)
        return opened(uri)

    monkeypatch.setattr(storage, "read_bytes", unreliable_read)
    monkeypatch.setattr(storage, "open_output", unreliable_open)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert run(model, f"{s3}/in", f"{s3}/out", retries=2, part_lines=3)["read"] == 6
    assert (failed.count(".png"), failed.count(".parquet")) == (2, 1)
    assert [row["id"] for row in table(f"{s3}/out")] == [f"{n:04d}" for n in range(6)]
    often = 1_000
    with pytest.raises(UserError, match="the storage does not answer"):
        run(model, f"{s3}/in", f"{s3}/out2", retries=1)
    assert failed.count(".png") > 2
    assert not storage.exists(f"{s3}/out2/transcription.json")
