"""Units worked through here and by Ray Data: the same lines, in the same order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import cloudpickle

from htr_ray import storage
from htr_ray.corpus import ingest as ingesting
from htr_ray.corpus.importers import IMPORTERS, Importer
from htr_ray.corpus.importers.check import RawLine, check_line
from htr_ray.corpus.importers.units import Unit
from htr_ray.corpus.ingest import ingest
from htr_ray.corpus.prepare import prepare
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import SPLITS, Imported, SetAside
from htr_ray.corpus.work import INGESTED, batches_of
from htr_ray.errors import UserError


@dataclass(frozen=True)
class Numbered:
    """A unit of ``count`` lines; every seventh is set aside."""

    first: int
    count: int

    def lines(self) -> Iterator[Imported | SetAside]:
        for number in range(self.first, self.first + self.count):
            image = np.full((16, 20 + number % 9), number % 256, np.uint8)
            text = "" if number % 7 == 0 else f"line {number}"
            split = "test" if number % 5 == 0 else None
            yield check_line(RawLine(f"l{number}", image, text, f"w{number % 3}", None, split))


@dataclass(frozen=True)
class Away:
    """A unit of a store that does not answer."""

    def lines(self) -> Iterator[Imported | SetAside]:
        raise storage.Unavailable("s3://bucket/lines: does not answer")


@pytest.fixture(autouse=True, scope="module")
def by_value() -> Iterator[None]:
    """Ray's workers do not find the modules of tests."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that somebody runs on this machine either; a test that wants Ray starts it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ingesting.connect, "started_here", lambda: None)


def rows(units: list[Unit | SetAside]) -> list[dict[str, Any]]:
    return [row for _, batch in ingest(units) for row in batch.to_pylist()]


def units(count: int) -> list[Unit | SetAside]:
    made: list[Unit | SetAside] = [Numbered(100 * number, 100) for number in range(count)]
    return [*made, SetAside("orphan.txt", "text without an image")]


def test_few_units_need_no_ray() -> None:
    assert not ray.is_initialized()
    found = rows(units(2))
    assert not ray.is_initialized()
    assert [row["id"] for row in found] == [f"l{number}" for number in range(200)] + ["orphan.txt"]
    assert [row["reason"] for row in found[:8]] == ["empty text", *[None] * 6, "empty text"]
    assert found[5]["split"] == "test" and found[6]["split"] is None
    assert found[-1] | {"reason": None} == dict.fromkeys(INGESTED.names) | {"id": "orphan.txt", "detail": ""}
    assert len({row["digest"] for row in found if row["digest"]}) == sum(row["reason"] is None for row in found)


def test_more_units_are_done_by_processes_in_the_same_order() -> None:
    found = rows(units(7))
    assert not ray.is_initialized()
    assert found == [row for unit in units(7) for batch in batches_of(unit) for row in batch.to_pylist()]
    with pytest.raises(UserError, match=r"^s3://bucket/lines: does not answer$"):
        rows([*units(7), Away()])


def test_the_share_of_the_units_reaches_one() -> None:
    shares = [share for share, _ in ingest(units(7))]
    assert shares == sorted(shares) and shares[-1] == 1 and shares[0] == 1 / 8


def test_a_ray_that_is_asked_for_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match="RAY_ADDRESS=127.0.0.1:9: no Ray answers there"):
        rows(units(2))


def test_a_store_that_does_not_answer_ends_it_here_too() -> None:
    with pytest.raises(UserError, match=r"^s3://bucket/lines: does not answer$"):
        rows([Away()])


def test_ray_data_gives_the_same_lines_in_the_same_order(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = rows(units(20))
    assert len(distributed) == 2001
    here = [row for unit in units(20) for batch in batches_of(unit) for row in batch.to_pylist()]
    assert distributed == here


def test_a_store_that_does_not_answer_ends_it_with_its_own_message(ray_local: None) -> None:
    with pytest.raises(UserError, match=r"^s3://bucket/lines: does not answer$"):
        rows([*units(3), Away()])


def test_a_corpus_is_the_same_either_way(ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(IMPORTERS, "numbered", Importer(lambda uri, options: iter(units(3)), ""))
    distributed = prepare("numbered", "x", str(tmp_path), "distributed")
    monkeypatch.setattr(ingesting.ray, "is_initialized", lambda: False)
    here = prepare("numbered", "x", str(tmp_path), "here")
    assert distributed["lines"] == here["lines"] == 257
    assert distributed["set_aside"] == here["set_aside"] == {"empty text": 43, "text without an image": 1}
    corpora = [Corpus.open(str(tmp_path / name)) for name in ("distributed", "here")]
    for split in SPLITS:
        first, second = (corpus.index(split, ("id", "text", "writer", "width")) for corpus in corpora)
        columns = ["id", "text", "writer", "width"]
        assert first.select(columns).equals(second.select(columns))
