"""The usual loaders, as their documentation recommends them, with as many worker processes as our stream has.

All of them call the very functions that our stream calls: :meth:`BatchMaker.line` (decode, scale, augment, encode the
text), :func:`pack` and :func:`padded_width`.
"""

from __future__ import annotations

import itertools
import json
import sys
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
import torch
from scene import Contender, Fed, Scene
from torch.utils.data import DataLoader, Dataset, Sampler

from htr_ray.corpus.read import Corpus
from htr_ray.stream.batch import BatchMaker, Recipe, padded_width
from htr_ray.stream.plan import Plan
from htr_ray.stream.scale import pack, scaled_width

SHARD_LINES = 1024
FETCH_THREADS = 16

Made = tuple[str, str, np.ndarray, np.ndarray]
"""Id, text, image uint8 ``[H, W]``, target int64 ``[L]`` of a line."""


def processes(scene: Scene) -> dict[str, Any]:
    """What a loader is told about its processes: as many as our stream has."""
    return {"num_workers": scene.streaming.workers, "prefetch_factor": 4, "persistent_workers": True}


def lines_of(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """All labelled training lines with their images, in the order of the corpus."""
    groups = [0]
    for file, uri in enumerate(corpus.files("train")):
        index = corpus.index("train", columns=("id",))
        groups = index["row_group"].to_numpy()[index["file"].to_numpy() == file]
        for group in range(int(groups.max()) + 1):
            for line in corpus.read_row_group(uri, group, ("id", "image", "text")).to_pylist():
                if line["text"] is not None:
                    yield line


def collate(lines: Sequence[Made]) -> Fed:
    """What :class:`BatchMaker` makes of a batch, as tensors."""
    ids, texts, images, targets = zip(*lines, strict=True)
    widths = np.array([image.shape[1] for image in images], np.int32)
    lengths = np.array([len(target) for target in targets], np.int64)
    table = np.zeros((len(lines), max(1, int(lengths.max()))), np.int64)
    for row, target in zip(table, targets, strict=True):
        row[: len(target)] = target
    return {
        "images": torch.from_numpy(pack(images, padded_width(int(widths.max())))),
        "widths": torch.from_numpy(widths),
        "targets": torch.from_numpy(table),
        "lengths": torch.from_numpy(lengths),
        "weights": torch.ones(len(lines)),
        "ids": list(ids),
        "texts": list(texts),
    }


class _Make:
    """A line's dictionary -> :data:`Made`; its own maker in each process."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.maker: BatchMaker | None = None
        self.views = itertools.count()

    def __call__(self, line_id: str, data: bytes, text: str, lap: int | None = None) -> Made:
        self.maker = self.maker or BatchMaker(self.recipe)
        # Another number for every view does what the lap does.
        image, target = self.maker.line(data, line_id, text, next(self.views) if lap is None else lap)
        return line_id, text, image, target


# --- torch.utils.data.DataLoader: a map-style dataset of image files, batches of like width by a sampler ---


def write_files(corpus: Corpus, folder: Path) -> None:
    folder.mkdir(parents=True)
    listed = []
    for number, line in enumerate(lines_of(corpus)):
        (folder / f"{number:07d}").write_bytes(line["image"])
        listed.append([line["id"], line["text"]])
    (folder / "lines.json").write_text(json.dumps(listed))


class _Files(Dataset):
    """Items are asked for as ``(lap, number)``, a whole batch at a time (``__getitems__``)."""

    def __init__(self, scene: Scene) -> None:
        self.make, self.where, self.cache = _Make(scene.recipe), scene.peer, Path(scene.cache)
        self.remote = scene.remote
        self.lines = json.loads(self._read("lines.json"))
        self.pool: ThreadPoolExecutor | None = None

    def _read(self, name: str) -> bytes:
        if not self.remote:
            return (Path(self.where) / name).read_bytes()
        kept = self.cache / name
        if not kept.exists():
            bucket, key = self.where.removeprefix("s3://").split("/", 1)
            kept.write_bytes(self.client.get_object(Bucket=bucket, Key=f"{key}/{name}")["Body"].read())
        return kept.read_bytes()

    @property
    def client(self) -> Any:
        if not hasattr(self, "_client"):
            from botocore.config import Config

            self._client = boto3.client("s3", config=Config(max_pool_connections=FETCH_THREADS))
        return self._client

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_client", "pool")} | {"pool": None}

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Made]:
        names = [f"{number:07d}" for _, number in keys]
        if self.remote:
            assert self.client
            self.pool = self.pool or ThreadPoolExecutor(FETCH_THREADS)
            data = list(self.pool.map(self._read, names))
        else:
            data = [self._read(name) for name in names]
        return [self.make(*self._named(n, image), lap) for (lap, n), image in zip(keys, data, strict=True)]

    def _named(self, number: int, image: bytes) -> tuple[str, bytes, str]:
        line_id, text = self.lines[number]
        return line_id, image, text


class _LikeWidths(Sampler):
    """Our own plan as a batch sampler: the loader gets the very batches that our stream makes."""

    def __init__(self, scene: Scene) -> None:
        corpus, recipe = scene.corpus, scene.recipe
        index = corpus.index("train", columns=("width", "height", "text"))
        index = index.filter(index["text"].is_valid())
        widths = [
            scaled_width(w, h, recipe.height, recipe.width_scale, recipe.max_width)
            for w, h in zip(index["width"].to_pylist(), index["height"].to_pylist(), strict=True)
        ]
        self.plan = Plan(
            np.array(widths, np.int32),
            np.arange(len(widths), dtype=np.int32),
            scene.batch_size,
            scene.streaming.shuffle_lines,
            seed=0,
        )
        self.laps = itertools.count()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        lap = next(self.laps)
        for number, chunk in enumerate(self.plan.chunks(lap)):
            for batch in self.plan.batches(lap, number, chunk):
                yield [(lap, int(line)) for line in batch]


class Torch(Contender):
    write = staticmethod(write_files)

    def epochs(self, count: int) -> Iterator[Iterator[Fed]]:
        options = {"collate_fn": collate, **processes(self.scene)}
        loader = DataLoader(_Files(self.scene), batch_sampler=_LikeWidths(self.scene), **options)
        for _ in range(count):
            yield iter(loader)


# --- webdataset: tar shards, cache folder, shuffle buffer ---


def write_tars(corpus: Corpus, folder: Path) -> None:
    import webdataset as wds

    folder.mkdir(parents=True)
    with wds.ShardWriter(str(folder / "%05d.tar"), maxcount=SHARD_LINES, verbose=0) as shards:
        for number, line in enumerate(lines_of(corpus)):
            shards.write(
                {"__key__": f"{number:07d}", "id": line["id"].encode(), "img": line["image"], "txt": line["text"]}
            )


class WebDataset(Contender):
    write = staticmethod(write_tars)

    def epochs(self, count: int) -> Iterator[Iterator[Fed]]:
        import webdataset as wds

        scene, make = self.scene, _Make(self.scene.recipe)
        if scene.remote:
            bucket, key = scene.peer.removeprefix("s3://").split("/", 1)
            client = boto3.client("s3")
            found = client.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
            endpoint = client.meta.endpoint_url
            assert urlsplit(endpoint).scheme == "http"
            urls = [f"{endpoint}/{bucket}/{item['Key']}" for item in found if item["Key"].endswith(".tar")]
            cached: dict[str, Any] = {"cache_dir": scene.cache}
        else:
            urls, cached = [str(path) for path in sorted(Path(scene.peer).glob("*.tar"))], {}

        def made(sample: dict[str, Any]) -> Made:
            return make(sample["id"].decode(), sample["img"], sample["txt"].decode())

        dataset = (
            wds.WebDataset(urls, shardshuffle=len(urls), seed=0, **cached)
            .shuffle(scene.streaming.shuffle_lines)
            .map(made)
            .batched(scene.batch_size, collation_fn=collate, partial=True)
        )
        loader = wds.WebLoader(dataset, batch_size=None, **processes(scene))
        for _ in range(count):
            yield iter(loader)


# --- mosaicml-streaming: MDS shards, local folder, predownload ---


def _import_streaming() -> Any:
    """Of torchvision and transformers it imports what lines of writing do not need; both would pull half a gigabyte."""
    for name, attribute in (
        ("torchvision", ""),
        ("torchvision.datasets", "VisionDataset"),
        ("torchvision.transforms", ""),
        ("torchvision.transforms.functional", "to_tensor"),
        ("transformers", ""),
        ("transformers.models", ""),
        ("transformers.models.auto", ""),
        ("transformers.models.auto.tokenization_auto", "AutoTokenizer"),
        ("transformers.feature_extraction_utils", "BatchFeature"),
        ("transformers.tokenization_utils_base", "BatchEncoding"),
    ):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        if attribute:
            setattr(module, attribute, type(attribute, (), {}))
    import streaming

    return streaming


def write_mds(corpus: Corpus, folder: Path) -> None:
    columns = {"id": "str", "image": "bytes", "text": "str"}
    with _import_streaming().MDSWriter(out=str(folder), columns=columns, size_limit=1 << 23) as writer:
        for line in lines_of(corpus):
            writer.write(line)


class Mosaic(Contender):
    write = staticmethod(write_mds)

    def epochs(self, count: int) -> Iterator[Iterator[Fed]]:
        streaming = _import_streaming()
        scene, make = self.scene, _Make(self.scene.recipe)

        class Lines(streaming.StreamingDataset):
            def __getitem__(self, at: int) -> Made:
                line = super().__getitem__(at)
                return make(line["id"], line["image"], line["text"])

        place = {"remote": scene.peer, "local": scene.cache} if scene.remote else {"local": scene.peer}
        dataset = Lines(**place, shuffle=True, shuffle_seed=1, batch_size=scene.batch_size, num_canonical_nodes=1)
        options = {"collate_fn": collate, **processes(scene)}
        loader = streaming.StreamingDataLoader(dataset, batch_size=scene.batch_size, **options)
        for _ in range(count):
            yield iter(loader)


PEERS: dict[str, Any] = {"torch": Torch, "webdataset": WebDataset, "mosaic": Mosaic}


if __name__ == "__main__":
    name, corpus, folder = sys.argv[1:]
    PEERS[name].write(Corpus.open(corpus), Path(folder))
