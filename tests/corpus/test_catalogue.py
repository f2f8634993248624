"""The catalogue itself, and fetching from stand-ins for GitHub and the hub: nothing here leaves this machine."""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from htr_ray import storage
from htr_ray.corpus.catalogue import Entry, Fetched, describe, fetch, find, from_git, from_hub, listing, load
from htr_ray.corpus.importers import IMPORTERS
from htr_ray.corpus.prepare import prepare
from htr_ray.corpus.read import Corpus
from htr_ray.errors import UserError

if TYPE_CHECKING:
    from remote_stand_in import Hub, Repository

pytest_plugins = ["remote_stand_in"]
NOWHERE = "http://127.0.0.1:9"


def _entry(source: dict[str, Any], **fields: Any) -> Entry:
    basics = {"name": "mine", "title": "Mine", "languages": ["de"], "licence": "CC-BY-4.0", "licence_seen": "here"}
    return Entry.model_validate(basics | {"citation": "A. B.: Mine.", "format": "pairs", "source": source} | fields)


def _git_entry(repository: Repository, revision: str | None, paths: list[str] | None = None, **fields: Any) -> Entry:
    source = {"kind": "git", "url": repository.url, "revision": revision, "paths": paths or []}
    return _entry(source, **fields)


def _hub_entry(revision: str | None, sha256: dict[str, str] | None = None, **fields: Any) -> Entry:
    source = {"kind": "hub", "repository": "a/b", "revision": revision, "files": ["data/*.parquet"], "sha256": sha256}
    return _entry(source, format="parquet", **fields)


def _png(grey: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((20, 60), grey, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def _pairs(count: int = 8) -> dict[str, bytes]:
    files = {f"lines/w{n % 4}/{n}.png": _png(n) for n in range(count)}
    return files | {f"lines/w{n % 4}/{n}.txt": f"line {n}".encode() for n in range(count)}


def _table(count: int = 12, first: int = 0) -> bytes:
    rows = [
        {"image": {"bytes": _png(first + n), "path": f"{first + n}.png"}, "text": f"line {n}", "writer": f"w{n % 4}"}
        for n in range(count)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _prepare(entry: Entry, fetched: Fetched, output: Path) -> Corpus:
    """As ``jobs/prepare_data.py --corpus`` does it."""
    facts = {"licence": entry.licence, "source": fetched.source, "citation": entry.citation}
    prepare(entry.format, fetched.input, str(output), entry.name, options=fetched.options, **facts)
    return Corpus.open(str(output / entry.name))


def test_the_job_adds_own_options_to_the_catalogues(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--corpus mine --normalisation NFD`` stores decomposed letters."""
    sink = io.BytesIO()
    rows = [{"image": {"bytes": _png(n)}, "reading": "\u00e4", "writer": f"w{n % 4}"} for n in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), sink)
    entry = _hub_entry(hub.add("a/b", {"data/x.parquet": sink.getvalue()}), options={"text_column": "reading"})
    monkeypatch.setenv("HTR_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "jobs"))
    job = importlib.import_module("prepare_data")
    monkeypatch.setattr(job.catalogue, "find", lambda name: entry)
    arguments = ["--corpus", "mine", "--output", str(tmp_path)]
    assert job.main([*arguments, "--normalisation", "NFD"]) == 0
    assert Corpus.open(str(tmp_path / "mine")).info.alphabet == "a\u0308"
    assert job.main([*arguments, "--text-column", "text"]) == 0, "the default, so not said"
    assert job.main([*arguments, "--text-column", "none"]) == 2


def _tree(folder: str | Path) -> list[str]:
    return [name for name in storage.walk(str(folder)) if name != ".complete"]


# --- the catalogue ----------------------------------------------------------------------------------------


def test_catalogue_is_sound(tmp_path: Path) -> None:
    entries = load()
    text = (Path(from_git.__file__).parent / "catalogue.yaml").read_text(encoding="utf-8")
    assert len(entries) == text.count("- name:"), "names are unique"
    assert {"de", "fr", "it", "es", "la", "pt", "en"} <= {
        language for e in entries.values() for language in e.languages
    }
    assert {"dhsd", "testaments", "copiste", "htromance-medieval-italian"} <= entries.keys()
    for entry in entries.values():
        # Both kinds of place are the publishers' own; a registry or a mirror is neither.
        assert re.match(r"https://(github\.com|huggingface\.co/datasets)/[^/]+/[^/]+$", entry.source.address)
        assert entry.format in IMPORTERS or entry.format in {"alto", "page", "table"}
        assert entry.options_at(str(tmp_path)), "the importer's options take these values"
        if entry.input and entry.source.kind == "git" and entry.source.paths:
            assert any(f"{entry.input}/".startswith(f"{path}/") for path in entry.source.paths), "input is fetched"


def test_unpinned_entries_are_few_and_say_so() -> None:
    unpinned = [entry for entry in load().values() if entry.source.revision is None]
    assert [entry.name for entry in unpinned] == ["copiste"]
    assert all("newest commit: the catalogue names none" in " ".join(describe(e).split()) for e in unpinned)


@pytest.mark.parametrize(
    "change",
    [
        {"licence": "CC-BY-NC-4.0"},
        {"licence": "unknown"},
        {"languages": []},
        {"languages": ["German"]},
        {"name": "Mine!"},
        {"input": "../up"},
        {"input": "/etc"},
        {"options": {"hight": 64}},
        {"extra": 1},
        {"source": {"kind": "git", "url": "x", "revision": "main"}},
        {"source": {"kind": "git", "url": "x", "revision": "abc123"}},
        {"source": {"kind": "git", "url": "x"}},
        {"source": {"kind": "hub", "repository": "a/b", "revision": None, "files": []}},
        {"source": {"kind": "hub", "repository": "a/b", "revision": None, "files": ["x"], "sha256": {"x": "1"}}},
    ],
)
def test_wrong_entries_are_refused(change: dict[str, Any]) -> None:
    source = {"kind": "git", "url": "x", "revision": None}
    with pytest.raises(ValidationError):
        _entry(**({"source": source} | change))


def test_find() -> None:
    assert find(" DHSD ").name == "dhsd"
    with pytest.raises(UserError, match="--corpus testament: not in the catalogue; did you mean testaments?"):
        find("testament")
    with pytest.raises(UserError, match="--corpus qqq: not in the catalogue; There are: dhsd, testaments"):
        find("qqq")


def test_texts_for_people() -> None:
    rows = listing().splitlines()
    assert [row.split()[0] for row in rows] == list(load())
    assert max(map(len, rows)) <= 118
    for entry in load().values():
        text = describe(entry)
        flat = " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 118
        assert entry.licence in text and entry.source.address in text
        assert " ".join(entry.citation.split()) in flat
        assert entry.source.revision is None or entry.source.revision in text
    assert "the catalogue has none to compare" in describe(_hub_entry(None))
    assert "as the catalogue states it" in describe(_hub_entry(None, {"data/x.parquet": "0" * 64}))


def test_options_get_paths_of_the_download() -> None:
    options = find("copiste").options_at("/cache/copiste")
    assert (options.images, options.writer_pattern) == ("/cache/copiste/jpg", r"(imp_wikitexte_\d+)")
    assert find("copiste").input_at("/cache/copiste") == "/cache/copiste/alto"


# --- git --------------------------------------------------------------------------------------------------


def test_from_git_to_a_corpus(repository: Repository, tmp_path: Path) -> None:
    papers = {"README.md": b"read me", "LICENSE": b"free", "other/big.bin": b"0" * 1000}
    revision = repository.commit(_pairs() | papers)
    newer = repository.commit({"lines/w0/more.png": _png(99)})
    entry = _git_entry(repository, revision, ["lines"], input="lines")
    told: list[str] = []
    fetched = fetch(entry, tmp_path / "cache", told.append)
    assert fetched.input == str(tmp_path / "cache" / "corpora" / f"mine@{revision}" / "lines")
    assert _tree(Path(fetched.input).parent) == sorted([*_pairs(), "LICENSE", "README.md"])
    assert fetched.source == f"{repository.url} at {revision}"
    assert fetched.remarks == (f"checked by git: all files are those of commit {revision}",)
    assert any("%" in line for line in told)

    corpus = _prepare(entry, fetched, tmp_path / "corpora")
    info = corpus.info
    assert (info.licence, info.source, info.citation) == ("CC-BY-4.0", fetched.source, "A. B.: Mine.")
    assert sum(counts.lines for counts in info.counts.values()) == 8

    shutil.rmtree(repository.folder)
    assert fetch(entry, tmp_path / "cache") == fetched, "the second time no network is needed"
    with pytest.raises(UserError, match="no public repository at this address any more"):
        fetch(_git_entry(repository, newer, ["lines"], input="lines"), tmp_path / "cache")


def test_git_without_a_revision_takes_the_newest_and_records_it(repository: Repository, tmp_path: Path) -> None:
    revision = repository.commit({"a.txt": b"1"})
    entry = _git_entry(repository, None)
    fetched = fetch(entry, tmp_path)
    assert fetched.source.endswith(revision)
    assert fetched.remarks[0] == f"the catalogue names no commit; the newest was taken: {revision}"
    repository.commit({"a.txt": b"2"})
    assert fetch(entry, tmp_path) == fetched, "what was recorded stays"


def test_git_writes_what_was_committed(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither line endings nor links nor a hook of the user's change or leave the folder."""
    work = repository.folder.with_name("work")
    (work / "link").symlink_to("/etc/passwd")
    revision = repository.commit({"crlf.txt": b"a\r\nb\n", "späß.txt": b"1", "sub/.gitattributes": b"* text\n"})
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
    (hooks / "post-checkout").chmod(0o755)
    settings = tmp_path / "gitconfig"
    settings.write_text(f"[core]\n\tautocrlf = true\n\thooksPath = {hooks}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    folder = Path(fetch(_git_entry(repository, revision), tmp_path).input)
    assert (folder / "crlf.txt").read_bytes() == b"a\r\nb\n"
    assert (folder / "späß.txt").read_bytes() == b"1"
    assert not (folder / "link").is_symlink() and (folder / "link").read_text() == "/etc/passwd"
    assert not (folder / ".git").exists() and not (tmp_path / "hook-ran").exists()


def test_git_filter_that_changes_files(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = repository.commit({"a.txt": b"abc\n", ".gitattributes": b"*.txt filter=loud\n"})
    settings = tmp_path / "gitconfig"
    settings.write_text('[filter "loud"]\n\tsmudge = tr a-z A-Z\n\tclean = cat\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    with pytest.raises(UserError, match="1 files were not written as committed, for instance a.txt"):
        fetch(_git_entry(repository, revision), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("a.txt"))


def test_git_inside_a_hook(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = repository.commit({"a.txt": b"1"})
    monkeypatch.setenv("GIT_DIR", str(repository.folder))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert _tree(fetch(_git_entry(repository, revision), tmp_path).input) == ["a.txt"]


def test_git_errors(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = repository.commit({"a/x.txt": b"1"})
    with pytest.raises(UserError, match="the commit is not there any more"):
        fetch(_git_entry(repository, "0" * 39 + "1"), tmp_path / "cache")
    with pytest.raises(UserError, match=rf"commit {revision} has no 'b'; the catalogue is wrong"):
        fetch(_git_entry(repository, revision, ["a", "b"]), tmp_path / "cache")
    with pytest.raises(UserError, match="has no 'lines'; the catalogue is wrong"):
        fetch(_git_entry(repository, revision, input="lines"), tmp_path / "cache")
    gone = _entry({"kind": "git", "url": f"{NOWHERE}/x", "revision": revision})
    with pytest.raises(UserError, match="no connection; check the network"):
        fetch(gone, tmp_path / "cache")
    # Only what was complete is left, and no half of anything.
    assert sorted(os.listdir(tmp_path / "cache" / "corpora")) == [".mine.lock", f"mine@{revision}"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git is not installed"):
        fetch(_git_entry(repository, revision), tmp_path / "other")


def test_git_damaged_origin(repository: Repository, tmp_path: Path) -> None:
    revision = repository.commit({"a.txt": b"what was committed" * 100})
    blob = subprocess.run(
        ["git", "-C", str(repository.folder), "rev-parse", f"{revision}:a.txt"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    file = repository.folder / "objects" / blob[:2] / blob[2:]
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-5] + b"xxxxx")
    with pytest.raises(UserError, match=re.escape(repository.url)):
        fetch(_git_entry(repository, revision), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("a.txt"))


def test_interrupted_git_fetch_starts_again(repository: Repository, tmp_path: Path) -> None:
    revision = repository.commit({"a.txt": b"1"})
    for leftover in (f"mine@{revision}.partial", f"mine@{revision}"):
        (tmp_path / "corpora" / leftover / ".git").mkdir(parents=True)
    assert _tree(fetch(_git_entry(repository, revision), tmp_path).input) == ["a.txt"]


def test_lfs_pointers_are_told(repository: Repository, tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    revision = repository.commit({"a.jpg": pointer, "b.txt": b"version", "c.jpg": b"\xff\xd8" * 2000})
    (remark,) = fetch(_git_entry(repository, revision), tmp_path).remarks[1:]
    assert "1 files are git LFS pointers instead of the files, for instance a.jpg" in remark


def test_git_error_messages() -> None:
    said = "Cloning\nfatal: unable to access 'https://x/': Could not resolve host: x\n"
    assert "no connection" in from_git._explain(said) and "Could not resolve host" in from_git._explain(said)
    full = "error: file write error: No space left on device\nfatal: unable to write loose object file\n"
    assert "the disk (or quota) is full" in from_git._explain(full)
    assert "no public repository" in from_git._explain("fatal: could not read Username for 'https://github.com'")
    assert from_git._explain("fatal: something else") == "git failed: fatal: something else"


# --- the hub ----------------------------------------------------------------------------------------------


def test_from_the_hub_to_a_corpus(hub: Hub, tmp_path: Path) -> None:
    files = {"data/train.parquet": _table(12), "data/test.parquet": _table(4, 100), "README.md": b"hello"}
    revision = hub.add("a/b", files)
    hub.page_size = 2
    entry = _hub_entry(revision)
    told: list[str] = []
    fetched = fetch(entry, tmp_path / "cache", told.append)
    assert _tree(fetched.input) == ["data/test.parquet", "data/train.parquet"]
    assert any(re.search(r"train.parquet: [\d.]+ MB of [\d.]+ MB", line) for line in told)
    sums = {path: hashlib.sha256(files[path]).hexdigest() for path in sorted(files) if path.endswith("parquet")}
    listed = hashlib.sha256("".join(f"{sums[path]}  {path}\n" for path in sums).encode()).hexdigest()
    assert "not verified against the catalogue, which has none" in fetched.remarks[0]
    assert listed in fetched.remarks[0] and listed in fetched.source and revision in fetched.source

    info = _prepare(entry, fetched, tmp_path / "corpora").info
    assert (info.licence, info.source, info.citation) == ("CC-BY-4.0", fetched.source, "A. B.: Mine.")
    assert (info.counts["test"].lines, info.split_by) == (4, "official")

    hub.requests.clear()
    assert fetch(entry, tmp_path / "cache") == fetched
    assert hub.requests == [], "the second time no network is needed"


def test_hub_checksums_of_the_catalogue(hub: Hub, tmp_path: Path) -> None:
    content = _table()
    revision = hub.add("a/b", {"data/x.parquet": content, "data/y.parquet": _table(3)})
    good = {"data/x.parquet": hashlib.sha256(content).hexdigest()}
    remarks = fetch(_hub_entry(revision, good), tmp_path / "good").remarks
    assert remarks == ("1 of 2 files verified against the catalogue's sha256, all against the hub's",)
    bad = {"data/x.parquet": "0" * 64}
    with pytest.raises(UserError) as caught:
        fetch(_hub_entry(revision, bad), tmp_path / "bad")
    assert "data/x.parquet: wrong checksum" in str(caught.value)
    assert good["data/x.parquet"] in str(caught.value) and "0" * 64 in str(caught.value)
    assert not list((tmp_path / "bad").rglob("*.parquet*")) and not list((tmp_path / "bad").rglob(".complete"))
    with pytest.raises(UserError, match="has no data/z.parquet, which the catalogue names"):
        fetch(_hub_entry(revision, {"data/z.parquet": "0" * 64}), tmp_path / "bad")


@pytest.mark.parametrize("size", [50, 5000])
def test_tampered_files_are_refused_and_deleted(hub: Hub, tmp_path: Path, size: int) -> None:
    """Large files have a sha256 on the hub, small ones a git id; both are compared."""
    revision = hub.add("a/b", {"data/x.parquet": b"a" * size})
    hub.tampered["data/x.parquet"] = b"b" * size
    with pytest.raises(UserError, match=r"data/x.parquet: wrong checksum: .* the hub says .* deleted"):
        fetch(_hub_entry(revision), tmp_path)
    assert not list(tmp_path.rglob("*.parquet*"))
    hub.tampered.clear()
    assert _tree(fetch(_hub_entry(revision), tmp_path).input) == ["data/x.parquet"]


@pytest.mark.parametrize("refuses_ranges", [False, True])
def test_broken_downloads_go_on(hub: Hub, tmp_path: Path, refuses_ranges: bool) -> None:
    content = os.urandom(300_000)
    revision = hub.add("a/b", {"data/x.parquet": content})
    hub.break_after = [100_000, 150_000]
    hub.refuses_ranges = refuses_ranges
    folder = Path(fetch(_hub_entry(revision), tmp_path).input)
    assert (folder / "data" / "x.parquet").read_bytes() == content
    assert [request.split()[2] for request in hub.downloads()[1:]][:1] == ["bytes=100000-"]


def test_interrupted_hub_fetch_goes_on_later(hub: Hub, tmp_path: Path) -> None:
    files = {"data/a.parquet": os.urandom(200_000), "data/b.parquet": os.urandom(200_000)}
    entry = _hub_entry(hub.add("a/b", files))
    hub.break_after = [200_000, 120_000, 0]
    with pytest.raises(UserError, match=r"data/b.parquet: (no connection|ends after)"):
        fetch(entry, tmp_path)
    assert not list(tmp_path.rglob(".complete"))
    hub.requests.clear()
    folder = Path(fetch(entry, tmp_path).input)
    assert {name: (folder / name).read_bytes() for name in _tree(folder)} == files
    assert [(name.split("/")[-1]) for name in hub.downloads()] == ["b.parquet bytes=120000-"]


def test_what_an_interrupted_fetch_left_is_checked(hub: Hub, tmp_path: Path) -> None:
    revision = hub.add("a/b", {"data/a.parquet": b"a" * 500, "data/b.parquet": b"b" * 500})
    folder = tmp_path / "corpora" / f"mine@{revision}" / "data"
    folder.mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"x" * 500)
    (folder / "b.parquet.part").write_bytes(b"b" * 900)
    with pytest.raises(UserError, match="data/a.parquet: wrong checksum"):
        fetch(_hub_entry(revision), tmp_path)
    assert _tree(fetch(_hub_entry(revision), tmp_path).input) == ["data/a.parquet", "data/b.parquet"]


def test_hub_without_a_revision(hub: Hub, tmp_path: Path) -> None:
    revision = hub.add("a/b", {"data/x.parquet": b"1"})
    fetched = fetch(_hub_entry(None), tmp_path)
    assert revision in fetched.remarks[0] and revision in fetched.source
    hub.add("a/b", {"data/x.parquet": b"2"})
    assert fetch(_hub_entry(None), tmp_path) == fetched


def test_hub_errors(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = hub.add("a/b", {"README.md": b"hello"})
    with pytest.raises(UserError, match=r"no file data/\*.parquet at commit"):
        fetch(_hub_entry(revision), tmp_path)
    with pytest.raises(UserError, match=r"not there, or not public any more \(HTTP 404\)"):
        fetch(_hub_entry("0" * 40), tmp_path)
    hub.status = 503
    with pytest.raises(storage.Unavailable, match="busy or broken"):
        fetch(_hub_entry(revision), tmp_path)
    hub.status = 200
    with pytest.raises(UserError, match="not an answer of the hub; check HF_ENDPOINT"):
        fetch(_hub_entry(revision), tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    with pytest.raises(storage.Unavailable, match="no connection; check the network"):
        fetch(_hub_entry(revision), tmp_path)


def test_hub_may_not_name_files_outside(hub: Hub, tmp_path: Path) -> None:
    revision = hub.add("a/b", {"data/../../../x.parquet": b"1"})
    with pytest.raises(UserError, match="outside of the dataset"):
        fetch(_hub_entry(revision), tmp_path / "cache")
    assert not list(tmp_path.rglob("x.parquet"))


def test_full_disk(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = hub.add("a/b", {"data/x.parquet": b"1" * 3_000_000})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(from_hub.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(UserError, match=r"3.0 MB are needed, 1.0 MB are free; .* HTR_RAY_CACHE"):
        fetch(_hub_entry(revision), tmp_path)
    assert hub.downloads() == []

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(from_hub.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(from_hub, "_append", full)
    with pytest.raises(UserError, match="the disk .* is full"):
        fetch(_hub_entry(revision), tmp_path)


# --- the cache --------------------------------------------------------------------------------------------


def test_cache_is_where_the_environment_says(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = hub.add("a/b", {"data/x.parquet": b"1"})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HTR_RAY_CACHE", raising=False)
    assert fetch(_hub_entry(revision)).input == str(tmp_path / "home/.cache/htr-ray/corpora" / f"mine@{revision}")
    monkeypatch.setenv("HTR_RAY_CACHE", str(tmp_path / "mine"))
    assert fetch(_hub_entry(revision)).input == str(tmp_path / "mine/corpora" / f"mine@{revision}")


def test_two_at_once_download_once(hub: Hub, tmp_path: Path) -> None:
    entry = _hub_entry(hub.add("a/b", {"data/x.parquet": os.urandom(300_000)}))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: fetch(entry, tmp_path), range(2))
    assert first == second and len(hub.downloads()) == 1


def test_an_entry_that_asks_for_other_files_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    content = b"1" * 500
    revision = hub.add("a/b", {"data/x.parquet": content})
    fetch(_hub_entry(revision), tmp_path)
    known = {"data/x.parquet": hashlib.sha256(content).hexdigest()}
    assert "verified against the catalogue" in fetch(_hub_entry(revision, known), tmp_path).remarks[0]
    assert len(hub.downloads()) == 1, "the file itself is still there, and is checked against the new sum"


def test_marker_is_written_last_and_says_what_is_there(hub: Hub, tmp_path: Path) -> None:
    entry = _hub_entry(hub.add("a/b", {"data/x.parquet": b"1"}))
    folder = Path(fetch(entry, tmp_path).input)
    facts = json.loads((folder / ".complete").read_text())
    assert facts["name"] == "mine" and facts["asked"]["revision"] == entry.source.revision
    newest = max(folder.rglob("*"), key=lambda path: path.stat().st_mtime_ns if path.is_file() else 0)
    assert newest.name == ".complete"
