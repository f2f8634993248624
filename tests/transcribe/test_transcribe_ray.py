"""Transcription on Ray Data: the same results as in one process, with either layout of the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transcribe_helpers import run, save_small, table, tsv, write_lines

from htr_ray import storage
from htr_ray.errors import UserError
from htr_ray.transcribe import part

pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("decoders", [0, 2])
def test_as_in_one_process(model: str, tmp_path: Path, decoders: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = write_lines(tmp_path / "in", 30)
    (lines / "0007.png").write_bytes(b"no image")
    usual: dict[str, Any] = {"precision": "float32", "part_lines": 8}
    spread = run(model, lines, tmp_path / "spread", actors=2, decoders=decoders, **usual)
    with monkeypatch.context() as patch:
        patch.setattr("ray.is_initialized", lambda: False)  # as where no Ray runs yet
        alone = run(model, lines, tmp_path / "alone", **usual)
    for key in ("lines", "read", "unreadable_reasons", "cer", "wer", "parts"):
        assert spread[key] == alone[key], key
    assert spread["parts"] == 4
    # Sums are rounded otherwise by other numbers of threads.
    assert [(row["id"], row["text"], row["reason"]) for row in table(tmp_path / "spread")] == [
        (row["id"], row["text"], row["reason"]) for row in table(tmp_path / "alone")
    ]


def test_pages_on_ray(model: str, handwriting: Path, tmp_path: Path) -> None:
    told = run(model, handwriting / "pages/alto_testaments", tmp_path / "out", actors=1, decoders=1, part_pages=1)
    assert (told["read"], told["pages_written"], told["parts"]) == (28, 3, 3)
    assert len(list((tmp_path / "out/pages").glob("*.xml"))) == 3


def test_a_request_that_no_cluster_can_hold(model: str, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "in", 2)
    with pytest.raises(UserError, match="one actor needs 1 CPUs and 2 GPUs, the cluster has 4 and 0"):
        run(model, lines, tmp_path / "out", actors=1, gpus_per_actor=2)
    with pytest.raises(UserError, match="lower cpus_per_actor"):
        run(model, lines, tmp_path / "out", actors=1, cpus_per_actor=64)


@pytest.mark.parametrize("decoders", [0, 1])
def test_a_store_that_fails_is_told_without_a_trace(model: str, tmp_path: Path, decoders: int) -> None:
    lines = write_lines(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / part.LINES).write_text("in the way")
    with pytest.raises(UserError) as caught:
        run(model, lines, tmp_path / "out", actors=1, decoders=decoders, retries=0)
    assert "a part of it is a file, a folder is expected" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not storage.exists(str(tmp_path / "out/transcription.json"))
    (tmp_path / "out" / part.LINES).unlink()
    assert run(model, lines, tmp_path / "out", actors=1, decoders=decoders)["read"] == 2
    assert len(tsv(tmp_path / "out")) == 2
