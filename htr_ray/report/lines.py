"""The lines of a corpus' test split that a report needs: who wrote them, and some images."""

from __future__ import annotations

from collections.abc import Iterable

from htr_ray.corpus.read import Corpus


def test_writers(uri: str) -> dict[str, str]:
    """Writers of the test lines by line id, where they are known. Raises UserError as :meth:`Corpus.open`."""
    index = Corpus.open(uri).index("test", columns=("id", "writer"))
    pairs = zip(index["id"].to_pylist(), index["writer"].to_pylist(), strict=True)
    return {line_id: writer for line_id, writer in pairs if writer is not None}


def test_images(uri: str, ids: Iterable[str]) -> dict[str, bytes]:
    """Encoded images of test lines by id; ids that are not there are left out.

    Only the row groups that hold them are read. Raises UserError as :meth:`Corpus.open`.
    """
    wanted = set(ids)
    corpus = Corpus.open(uri)
    index = corpus.index("test", columns=("id",))
    names = index["id"].to_pylist()
    places = zip(index["file"].to_pylist(), index["row_group"].to_pylist(), strict=True)
    groups = {place for name, place in zip(names, places, strict=True) if name in wanted}
    files = corpus.files("test")
    found: dict[str, bytes] = {}
    for file, row_group in sorted(groups):
        table = corpus.read_row_group(files[file], row_group, ("id", "image"))
        pairs = zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True)
        found |= {line_id: image for line_id, image in pairs if line_id in wanted}
    return found
