"""The stream on a real Ray: whole, in order, repeatable, and gone when it is closed."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from htr_ray import storage
from htr_ray.config import AugmentSettings, StreamSettings
from htr_ray.corpus.images import decode_grey, encode_png
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.schema import Line
from htr_ray.corpus.write import CorpusWriter
from htr_ray.errors import UserError
from htr_ray.stream.batch import Batch, Recipe
from htr_ray.stream.pipeline import AHEAD_BYTES, MOST_BYTES, Source, _rounds, _start, open_source, stream
from htr_ray.stream.plan import Plan

# Ray's processes do not find this folder: send them the classes, not their names.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("ray_local")

RECIPE = Recipe(height=32, width_scale=1.0, max_width=512, seed=1, augment=AugmentSettings())  # type: ignore[call-arg]
SETTINGS = StreamSettings(shuffle_lines=64)  # type: ignore[call-arg]
UNCACHED = StreamSettings(shuffle_lines=64, cache_mb=0, workers=2)  # type: ignore[call-arg]


def source_of(uri: str, settings: StreamSettings = SETTINGS, **options: object) -> Source:
    values = {"batch_size": 16, "seed": 3, **options}
    return open_source(Corpus.open(uri), "train", RECIPE, settings, **values)  # type: ignore[arg-type]


def ids_by_epoch(batches: list[Batch]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for batch in batches:
        found.setdefault(batch.epoch, []).extend(batch.ids)
    return found


def same(a: list[Batch], b: list[Batch]) -> bool:
    def figures(batch: Batch) -> tuple[object, ...]:
        arrays = (batch.images, batch.widths, batch.targets, batch.lengths, batch.weights)
        shapes = [(array.dtype, array.shape, array.tobytes()) for array in arrays]
        return (*shapes, batch.ids, batch.texts, batch.total, batch.epoch, batch.last, batch.unreadable)

    return [figures(batch) for batch in a] == [figures(batch) for batch in b]


@pytest.fixture(scope="module")
def two_epochs(sample_corpus: str, ray_local: None) -> list[Batch]:
    return list(stream(source_of(sample_corpus), RECIPE, SETTINGS, epochs=2))


def test_every_line_once_per_epoch(sample_corpus: str, two_epochs: list[Batch]) -> None:
    source = source_of(sample_corpus)
    every = Counter(Corpus.open(sample_corpus).index("train", columns=("id",))["id"].to_pylist())
    found = ids_by_epoch(two_epochs)
    assert sorted(found) == [0, 1]
    assert Counter(found[0]) == Counter(found[1]) == every
    assert found[0] != found[1]
    assert len(two_epochs) == source.plan.steps(0) + source.plan.steps(1)
    last = [number for number, batch in enumerate(two_epochs, 1) if batch.last]
    assert last == [source.plan.steps(0), len(two_epochs)]
    assert all(len(batch.ids) == batch.total <= 16 and not batch.unreadable for batch in two_epochs)


def test_runs_repeat(sample_corpus: str, two_epochs: list[Batch]) -> None:
    """With other workers, prefetching and chunks in flight: the order and every pixel."""
    busy = StreamSettings(shuffle_lines=64, workers=3, prefetch_batches=1)  # type: ignore[call-arg]
    assert same(two_epochs, list(stream(source_of(sample_corpus, busy), RECIPE, busy, epochs=2)))


def test_a_pass_cut_into_epochs_reads_the_same_lines(sample_corpus: str, two_epochs: list[Batch]) -> None:
    source = source_of(sample_corpus, max_steps=4)
    parts = source.plan.parts
    assert parts > 1
    cut = list(stream(source, RECIPE, SETTINGS, epochs=2 * parts))
    assert [batch.ids for batch in cut] == [batch.ids for batch in two_epochs]
    assert all(np.array_equal(x.images, y.images) for x, y in zip(cut, two_epochs, strict=True))
    assert [batch.epoch for batch in cut if batch.last] == list(range(2 * parts))
    later = list(stream(source, RECIPE, SETTINGS, first_epoch=parts + 1, epochs=1))
    assert same(later, [batch for batch in cut if batch.epoch == parts + 1])


def test_resumed_stream_continues(sample_corpus: str, two_epochs: list[Batch]) -> None:
    second = list(stream(source_of(sample_corpus), RECIPE, SETTINGS, first_epoch=1, epochs=1))
    assert same([batch for batch in two_epochs if batch.epoch == 1], second)


def test_ranks_share_the_batches(sample_corpus: str, two_epochs: list[Batch]) -> None:
    source = source_of(sample_corpus, workers=2)
    ranks = [list(stream(source, RECIPE, SETTINGS, epochs=1, rank=rank, world=2)) for rank in range(2)]
    whole = [batch for batch in two_epochs if batch.epoch == 0]
    for one, first, second in zip(whole, *ranks, strict=True):
        assert first.total == second.total == one.total
        assert abs(len(first.ids) - len(second.ids)) <= 1
        assert first.last == second.last == one.last
        assert sorted(first.ids + second.ids) == sorted(one.ids)
        pixels = {i: one.images[n, 0, :, : one.widths[n]] for n, i in enumerate(one.ids)}
        for part in (first, second):
            for n, line_id in enumerate(part.ids):
                assert np.array_equal(part.images[n, 0, :, : part.widths[n]], pixels[line_id])


@pytest.fixture
def deaf_coordinator(ray_local: None) -> Iterator[None]:
    """Ray Data's coordinator grants nothing: so it is in an execution's first second, and until its process is up."""

    class Deaf:
        def request_resources(self, **_: object) -> None:
            return None

        def cancel_request(self, _: str) -> None:
            return None

        def get_reserved_resources(self, _: str) -> dict[str, Any]:
            return {}

    name = "AutoscalingCoordinator"
    with contextlib.suppress(ValueError):  # raised when there is none, or none any more
        while True:
            ray.kill(ray.get_actor(name, namespace=name))
            time.sleep(0.1)
    made: Any = ray.remote(Deaf)
    deaf = made.options(name=name, namespace=name, lifetime="detached", num_cpus=0).remote()
    ray.get(deaf.get_reserved_resources.remote(""))
    yield
    ray.kill(deaf)


def test_all_workers_start_at_once(deaf_coordinator: None, tmp_path: Path) -> None:
    """Whatever Ray Data believes that it may use: three tasks that wait for each other meet."""

    def meet(item: pa.Table) -> pa.Table:
        here = item["number"][0].as_py()
        (tmp_path / str(here)).touch()
        deadline = time.monotonic() + 60.0
        while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        return pa.table({"met": [len(list(tmp_path.iterdir()))]})

    settings = StreamSettings(workers=3)  # type: ignore[call-arg]
    work = [{"number": number} for number in range(3)], 3
    started = _start(work, make=meet, settings=settings, placement="SPREAD", prefetch=1)
    assert started is not None
    assert [row["met"][0].as_py() for row in started[0]] == [3, 3, 3]


def test_uncached_delivers_the_same_lines(sample_corpus: str, two_epochs: list[Batch]) -> None:
    cached, uncached = source_of(sample_corpus), source_of(sample_corpus, UNCACHED)
    assert cached.cached is not None and uncached.cached is None
    batches = list(stream(uncached, RECIPE, UNCACHED, epochs=2))
    assert {epoch: Counter(ids) for epoch, ids in ids_by_epoch(batches).items()} == {
        epoch: Counter(ids) for epoch, ids in ids_by_epoch(two_epochs).items()
    }

    # A line's view depends on seed, lap and id, however it was read.
    def views(batches: list[Batch]) -> dict[tuple[int, str], bytes]:
        return {
            (batch.epoch, i): batch.images[n, 0, :, : batch.widths[n]].tobytes()
            for batch in batches
            for n, i in enumerate(batch.ids)
        }

    assert views(batches) == views(two_epochs)


def test_read_keeps_the_order_asked_for(sample_corpus: str) -> None:
    wanted = np.array([7, 100, 3, 0, 55])
    index = Corpus.open(sample_corpus).index("train", columns=("id",))["id"].to_pylist()
    for settings in (SETTINGS, UNCACHED):
        lines, numbers = source_of(sample_corpus, settings).reach(wanted)
        assert lines.columns(numbers)["id"] == [index[i] for i in wanted]


def write_corpus(
    uri: Path,
    lines: int,
    broken: int | None = None,
    unlabelled: int | None = None,
    *,
    height: int = 32,
    flat: bool = False,
) -> str:
    """Noise, or with ``flat`` blank paper: files larger or smaller than their pixels."""
    rng = np.random.default_rng(0)
    with CorpusWriter(str(uri), "test") as corpus:
        for number in range(lines):
            width = int(rng.integers(40, 160))
            pixels = rng.integers(0, 256, (height, width), dtype=np.uint8)
            image = encode_png(np.full_like(pixels, 230) if flat else pixels)
            text = None if number == unlabelled else "ab"
            data = image[: len(image) // 2] if number == broken else image
            corpus.add(Line(f"line-{number}", data, width, height, text), "train")
    return str(uri)


def test_cache_has_a_limit(tmp_path: Path) -> None:
    """What fits is kept: scaled lines, else encoded files, else nothing; what is delivered is the same, to the bit."""
    one_mb = StreamSettings(shuffle_lines=256, cache_mb=1)  # type: ignore[call-arg]
    large = write_corpus(tmp_path / "large", 300, broken=7, height=128)
    small = write_corpus(tmp_path / "small", 600, broken=7, flat=True)
    neither = write_corpus(tmp_path / "neither", 600, broken=7)
    kept = source_of(large, one_mb)
    assert kept.cached is not None and kept.scaling == RECIPE.scaling == (32, 1.0, 512)
    encoded = source_of(small, one_mb)
    assert encoded.cached is not None and encoded.scaling is None
    assert source_of(neither, one_mb).cached is None
    for uri in (large, small):
        scaled = source_of(uri)
        assert scaled.scaling == RECIPE.scaling
        batches = list(stream(scaled, RECIPE, SETTINGS, epochs=1))
        # The same plan, every line read from storage and decoded on the way.
        uncached = replace(scaled, cached=None, scaling=None)
        if uri == small:
            assert same(batches, list(stream(replace(encoded, plan=scaled.plan), RECIPE, SETTINGS, epochs=1)))
        assert same(batches, list(stream(uncached, RECIPE, UNCACHED, epochs=1)))


def test_scaled_lines_serve_one_recipe(tmp_path: Path) -> None:
    source = source_of(write_corpus(tmp_path / "c", 20))
    with pytest.raises(ValueError, match=r"opened for height, width_scale, max_width \(32, 1.0, 512\): \(48, "):
        next(stream(source, replace(RECIPE, height=48), SETTINGS, epochs=1))


def test_only_training_lines_are_scaled_ahead(sample_corpus: str) -> None:
    """Of other splits the trainer keeps the batches: their lines pass through the stream once."""
    corpus = Corpus.open(sample_corpus)
    source = open_source(corpus, "val", RECIPE, SETTINGS, batch_size=16, seed=3)
    assert source.cached is not None and source.scaling is None


def test_real_handwriting_is_the_same_however_it_is_kept(handwriting: Path, tmp_path: Path) -> None:
    """Lines of four hands at two heights: bit for bit, and unreadable ones named in every epoch."""
    rows: list[dict[str, Any]] = []
    for name in ("copiste", "dhsd", "testaments", "htromance_ita"):
        rows += next(pq.ParquetFile(handwriting / "lines" / f"{name}.parquet").iter_batches(30)).to_pylist()
    with CorpusWriter(str(tmp_path / "c"), "real") as corpus:
        for number, row in enumerate(rows):
            data = row["image"]["bytes"]
            height, width = decode_grey(data).shape
            data = data[: len(data) // 2] if number == 5 else data
            corpus.add(Line(f"line-{number}", data, width, height, row["text"]), "train")
    for recipe in (RECIPE, replace(RECIPE, height=48, width_scale=1.5, augment=None)):
        scaled = open_source(Corpus.open(str(tmp_path / "c")), "train", recipe, SETTINGS, batch_size=16, seed=3)
        assert scaled.scaling == recipe.scaling
        batches = list(stream(scaled, recipe, SETTINGS, epochs=2))
        assert same(batches, list(stream(replace(scaled, cached=None, scaling=None), recipe, SETTINGS, epochs=2)))
        named = [(batch.epoch, name.split(":")[0]) for batch in batches for name in batch.unreadable]
        assert named == [(0, "line-5"), (1, "line-5")]


class AwayOnce(Corpus):
    """Storage that does not answer the first time that each process or another asks."""

    def read_row_group(self, file_uri: str, row_group: int, columns: Sequence[str] = ()) -> pa.Table:
        flag = Path(self.uri) / f"asked-{row_group}"
        if not flag.exists():
            flag.touch()
            raise storage.Unavailable(f"{file_uri}: no answer")
        return super().read_row_group(file_uri, row_group, columns)


def test_storage_that_is_away_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    uri = write_corpus(tmp_path / "c", 60)
    source = source_of(uri, UNCACHED)
    away = replace(source, corpus=AwayOnce(source.corpus.uri, source.corpus.info))
    assert same(list(stream(away, RECIPE, UNCACHED, epochs=1)), list(stream(source, RECIPE, UNCACHED, epochs=1)))
    assert list((tmp_path / "c").glob("asked-*")), "else nothing was away"


@pytest.mark.parametrize(("world", "workers"), [(1, 1), (1, 16), (8, 1)])
def test_rounds_are_large_enough_and_not_too_large(world: int, workers: int) -> None:
    lines, shuffle, line_bytes = 400_000, 16_384, 64 * 600
    plan = Plan(
        widths=np.full(lines, 600, np.int32),
        unit=np.arange(lines, dtype=np.int32),
        batch_size=64,
        shuffle_lines=shuffle,
        seed=0,
    )
    settings = StreamSettings(workers=workers, shuffle_lines=shuffle)  # type: ignore[call-arg]
    rounds = list(_rounds(plan, line_bytes, settings, 0, 1, world))
    assert [item["chunk"] for items, _ in rounds for item in items] == list(range(len(plan.epoch(0))))
    chunk = shuffle * line_bytes / world
    for items, _ in rounds[:-1]:
        assert AHEAD_BYTES <= len(items) * chunk < MOST_BYTES + chunk


def test_corrupt_image_is_named_and_nothing_else_lost(tmp_path: Path) -> None:
    uri = write_corpus(tmp_path / "c", 700, broken=300)
    for settings in (SETTINGS, UNCACHED):
        source = source_of(uri, settings)
        batches = list(stream(source, RECIPE, settings, epochs=1))
        assert len(ids_by_epoch(batches)[0]) == 700
        named = [name for batch in batches for name in batch.unreadable]
        assert len(named) == 1 and named[0].startswith("line-300: ")
        without = [i for batch in batches for i, w in zip(batch.ids, batch.weights, strict=True) if w == 0]
        assert without == ["line-300"]


def test_selection(tmp_path: Path) -> None:
    uri = write_corpus(tmp_path / "c", 20, unlabelled=4)
    assert source_of(uri).lines == 20
    assert source_of(uri, labelled=True).lines == 19
    source = source_of(uri, only={"line-4", "line-5", "line-6"}, labelled=True, min_steps=7)
    batches = list(stream(source, RECIPE, SETTINGS, epochs=1))
    assert sorted({i for batch in batches for i in batch.ids}) == ["line-5", "line-6"]
    assert len(batches) >= 7 and [batch.last for batch in batches] == [False] * (len(batches) - 1) + [True]


def test_too_little_for_the_workers(tmp_path: Path) -> None:
    uri = write_corpus(tmp_path / "c", 3)
    with pytest.raises(UserError, match=r"split 'train' has 3 lines.*4 training worker"):
        source_of(uri, workers=4)
    with pytest.raises(UserError, match="has 0 labelled lines"):
        source_of(uri, only=set(), labelled=True)
    with pytest.raises(UserError, match="batch_size = 5: too small for 3 training workers; at least 6"):
        source_of(uri, workers=3, batch_size=5)


def test_no_rank_goes_without_a_line(tmp_path: Path) -> None:
    """Odd numbers of lines, the smallest batches allowed, row groups of unequal size."""
    uri = write_corpus(tmp_path / "c", 259)
    settings = StreamSettings(shuffle_lines=1, cache_mb=0)  # type: ignore[call-arg]
    source = source_of(uri, settings, workers=3, batch_size=6)
    steps = {
        sum(1 for batch in stream(source, RECIPE, settings, epochs=1, rank=rank, world=3) if batch.ids)
        for rank in range(3)
    }
    assert steps == {source.plan.steps(0)}


def test_a_process_holds_the_lines_of_one_source(sample_corpus: str) -> None:
    """Those of a trial that ended would fill the object store: the process stays, and works for the next one."""
    first, second = (source_of(sample_corpus, seed=seed) for seed in (0, 1))
    lines = weakref.ref(first.reach(np.arange(1))[0])
    assert lines() is not None and first.cached is not None
    second.reach(np.arange(1))
    gc.collect()
    assert lines() is None


def test_closing_frees_the_tasks(sample_corpus: str) -> None:
    """An endless stream holds CPUs; they must come back, or the next trial waits for ever."""
    batches = stream(source_of(sample_corpus), RECIPE, SETTINGS)
    taken = list(itertools.islice(batches, 3))
    assert len(taken) == 3
    batches.close()
    deadline = time.monotonic() + 20
    while (free := ray.available_resources().get("CPU", 0)) < 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert free == 4
    time.sleep(1)
    assert ray.available_resources().get("CPU", 0) == 4, "nothing starts again"
    # And the next stream has room.
    assert len(list(stream(source_of(sample_corpus), RECIPE, SETTINGS, epochs=1))) > 0
