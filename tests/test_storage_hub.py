"""Files on a stand-in for the Hugging Face hub."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from htr_ray import storage
from htr_ray.corpus.prepare import prepare
from htr_ray.errors import UserError

if TYPE_CHECKING:
    from remote_stand_in import Hub

pytest.importorskip("huggingface_hub", reason="pip install 'htr-ray[hub]'")
pytest_plugins = ["remote_stand_in"]


def _lines(first: int, count: int) -> bytes:
    """A Parquet file in the layout of image datasets on the hub."""
    rows = []
    for number in range(first, first + count):
        sink = io.BytesIO()
        Image.fromarray(np.full((20, 60), number, np.uint8)).save(sink, "PNG")
        image = {"bytes": sink.getvalue(), "path": f"{number}.png"}
        rows.append({"image": image, "text": f"line {number}", "writer": f"w{number % 4}"})
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), table)
    return table.getvalue()


def test_read(hub: Hub) -> None:
    commit = hub.add("a/b", {"data/one.bin": bytes(range(256)) * 9, "data/deep/two": b"2", "README.md": b"hello"})
    for uri in ("hf://datasets/a/b", f"hf://datasets/a/b@{commit}", "hf://datasets/a/b@main"):
        assert storage.walk(uri) == ["README.md", "data/deep/two", "data/one.bin"]
        assert storage.walk(storage.join(uri, "data")) == ["deep/two", "one.bin"]
        assert storage.listdir(storage.join(uri, "data")) == ["deep", "one.bin"]
        assert storage.read_bytes(storage.join(uri, "data", "one.bin")) == bytes(range(256)) * 9
        assert storage.exists(f"{uri}/README.md") and not storage.exists(f"{uri}/nothing")
        assert storage.is_dir(f"{uri}/data") and not storage.is_dir(f"{uri}/README.md")
        with storage.open_input(f"{uri}/data/one.bin") as stream:
            stream.seek(300)
            assert stream.read(2) == bytes([44, 45])
    assert not storage.is_local("hf://datasets/a/b")
    assert storage.normalise("hf://datasets/a/b/data/") == "hf://datasets/a/b/data"


def test_prepare_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    files = {"data/train-00000-of-00001.parquet": _lines(0, 9), "data/test-00000-of-00001.parquet": _lines(100, 4)}
    hub.add("a/lines", files)
    report = prepare("parquet", "hf://datasets/a/lines", str(tmp_path), "lines")
    assert report["lines"] == 13 and report["split_by"] == "official"
    assert report["splits"]["test"]["lines"] == 4
    report = prepare("parquet", "hf://datasets/a/lines/data/train*.parquet", str(tmp_path), "train")
    assert report["lines"] == 9


def test_missing(hub: Hub) -> None:
    commit = hub.add("a/b", {"x": b"1"})
    for uri in ("hf://datasets/a/b/nothing", "hf://datasets/a/none/x", f"hf://datasets/a/b@{commit[::-1]}/x"):
        with pytest.raises(UserError, match="not found"):
            storage.read_bytes(uri)
    for uri in ("hf://datasets", "hf://datasets/a", "hf://"):
        with pytest.raises(UserError, match="names no dataset; write hf://datasets/namespace/name"):
            storage.exists(uri)


def test_refused(hub: Hub) -> None:
    hub.add("a/b", {"x": b"1"})
    hub.status = 403
    with pytest.raises(UserError, match="hf://datasets/a/b/x: access denied; .* HF_TOKEN"):
        storage.read_bytes("hf://datasets/a/b/x")


def test_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(storage.Unavailable, match="hf://datasets/a/b/x: the hub does not answer; .* HF_ENDPOINT"):
        storage.read_bytes("hf://datasets/a/b/x")


def test_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'htr-ray\[hub\]'"):
        storage.exists("hf://datasets/a/b/x")
