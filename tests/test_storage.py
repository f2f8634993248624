"""Files at URIs: local ones and a real S3 server on this machine."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pyarrow.fs as fs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr_ray import storage
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]


@pytest.fixture(params=["local", "file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place in each kind of storage."""
    if request.param == "local":
        return str(tmp_path)
    if request.param == "file":
        return tmp_path.as_uri()
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def test_round_trip(root: str) -> None:
    uri = storage.join(root, "a", "b.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"old")
    storage.write_bytes(uri, b"new \x00")
    assert storage.read_bytes(uri) == b"new \x00"
    assert storage.exists(uri) and storage.exists(storage.join(root, "a"))
    assert storage.is_dir(storage.join(root, "a")) and not storage.is_dir(uri)
    assert storage.listdir(root) == ["a"] and storage.listdir(storage.join(root, "a")) == ["b.bin"]
    storage.delete_file(uri)
    storage.delete_file(uri)
    assert not storage.exists(uri)


def test_json(root: str) -> None:
    uri = storage.join(root, "x.json")
    storage.write_json(uri, {"ſ": [1, None]})
    assert storage.read_json(uri) == {"ſ": [1, None]}
    storage.write_bytes(uri, b"{")
    with pytest.raises(UserError, match=r"x\.json: not valid JSON"):
        storage.read_json(uri)


def test_folders(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "one").write_bytes(b"1" * 3_000_000)
    (source / "deep" / "two").write_bytes(b"2")
    target = storage.join(root, "copy")
    storage.upload_dir(source, target)
    assert storage.walk(target) == ["deep/two", "one"]
    storage.download_dir(target, tmp_path / "back")
    assert (tmp_path / "back" / "one").read_bytes() == b"1" * 3_000_000
    assert (tmp_path / "back" / "deep" / "two").read_bytes() == b"2"
    storage.delete_dir(target)
    storage.delete_dir(target)
    assert not storage.exists(target)


def test_missing(root: str, tmp_path: Path) -> None:
    uri = storage.join(root, "nothing")
    for call in (storage.read_bytes, storage.listdir, storage.walk, storage.read_json):
        with pytest.raises(UserError, match="nothing: not found"):
            call(uri)
    with pytest.raises(UserError, match="nothing: not found"):
        storage.download_dir(uri, tmp_path / "x")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "empty URI"),
        ("nope://bucket/x", "nope://bucket/x: cannot be opened"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("file://host/x", "three slashes"),
    ],
)
def test_wrong_uri(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        storage.exists(uri)


def test_missing_bucket(s3: str) -> None:
    with pytest.raises(UserError, match="s3://no-such-bucket/x: no such bucket"):
        storage.write_bytes("s3://no-such-bucket/x", b"1")


def test_unreachable_store_can_be_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_S3_ATTEMPTS", 2)  # the waits between more of them are long
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(storage.Unavailable, match="does not answer") as caught:
        storage.read_bytes("s3://bucket/x")
    assert isinstance(caught.value, OSError) and isinstance(caught.value, UserError)


def test_a_full_disk_may_pass_and_is_told_with_what_is_free(tmp_path: Path) -> None:
    match = r"full, \d+\.\d MiB are free in .*; free some space"
    with pytest.raises(storage.DiskFull, match=match) as caught, storage.open_output(str(tmp_path / "f")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(caught.value, storage.MayPass) and not isinstance(caught.value, storage.Unavailable)


def test_wrong_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://host")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL=ftp://host"):
        storage.exists("s3://bucket/x")


def test_relative_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    storage.write_bytes("a/b", b"x")
    assert storage.read_bytes("~/a/b") == b"x"
    assert storage.normalise("a/") == str(tmp_path / "a")
    assert storage.normalise((tmp_path / "a b").as_uri()) == str(tmp_path / "a b")
    assert storage.normalise("s3://bucket/a/") == "s3://bucket/a"


def test_join() -> None:
    assert storage.join("s3://b/", "/a/", "", "c") == "s3://b/a/c"
    assert storage.join("s3://b/a?region=x", "c") == "s3://b/a/c?region=x"
    assert storage.join("/", "a") == "/a"
    assert storage.join("x") == "x"


@pytest.mark.parametrize("name", ["fol#12.png", "a%20b.png", "f?g.png", "ein Blatt.png", "\u00e9.png"])
def test_names_below_a_file_uri_are_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert storage.read_bytes(storage.join(f"file://{tmp_path}", name)) == b"x"


@pytest.mark.parametrize("name", ["fol#12.png", "a%20b.png", "ein Blatt.png", "\u00e9.png", "a+b&c=d.png"])
def test_names_are_names_below_a_uri_with_a_query(s3: str, name: str) -> None:
    storage.write_bytes(f"{s3}/in/{name}", b"x")
    host = os.environ["AWS_ENDPOINT_URL"].partition("://")[2]
    folder = f"{s3}/in?region=us-east-1&scheme=http&endpoint_override={host}"
    assert storage.walk(folder) == [name]
    assert storage.read_bytes(storage.join(folder, name)) == b"x"
    storage.write_bytes(storage.join(folder, "neu", name), b"y")
    assert storage.read_bytes(f"{s3}/in/neu/{name}") == b"y"
    assert storage.filesystem(f"gs://anonymous@bucket/in/{name}?scheme=http")[1] == f"bucket/in/{name}"


@given(st.lists(st.text("abc.-_0", min_size=1).filter(lambda p: p.strip(".")), max_size=4))
def test_join_is_associative(parts: list[str]) -> None:
    step_by_step = "s3://bucket"
    for part in parts:
        step_by_step = storage.join(step_by_step, part)
    assert storage.join("s3://bucket", *parts) == step_by_step


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "f")
    storage.write_bytes(uri, b"old")
    with pytest.raises(RuntimeError), storage.open_output(uri) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert storage.read_bytes(uri) == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_reader_sees_whole_files_only(tmp_path: Path) -> None:
    uri = str(tmp_path / "f")
    contents = [bytes([i]) * 200_000 for i in range(2)]
    storage.write_bytes(uri, contents[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for content in contents:
                storage.write_bytes(uri, content)

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        seen = {storage.read_bytes(uri) for _ in range(200)}
    finally:
        stop.set()
        thread.join()
    assert seen <= set(contents)


def test_file_where_a_folder_is_expected(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(UserError, match="a part of it is a file"):
        storage.write_bytes(str(tmp_path / "f" / "g"), b"")
    with pytest.raises(UserError, match="f.*folder is expected"):
        storage.listdir(str(tmp_path / "f"))


def test_no_access(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    tmp_path.chmod(0o500 if os.geteuid() else 0o700)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)  # nobody: root may write anywhere
    try:
        with pytest.raises(UserError, match="x: access denied; check file rights"):
            storage.write_bytes(str(tmp_path / "x"), b"")
    finally:
        os.seteuid(was)
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk .* is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "access denied"),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation"), "access denied"),
        (OSError("AWS Error NETWORK_CONNECTION during GetObject"), "does not answer"),
    ],
)
def test_faults_name_the_uri(tmp_path: Path, error: OSError, message: str) -> None:
    """Faults that are hard to bring about on a test machine, raised where they would be."""
    with pytest.raises(UserError, match=f"f: .*{message}"), storage.open_output(str(tmp_path / "f")):
        raise error


def test_filesystem_types(s3: str) -> None:
    assert isinstance(storage.filesystem("x")[0], fs.LocalFileSystem)
    filesystem, path = storage.filesystem(f"{s3}//a//b/")
    assert isinstance(filesystem, fs.S3FileSystem)
    assert path == f"{s3.removeprefix('s3://')}/a/b"


def test_names_that_are_no_names(tmp_path: Path) -> None:
    """Old archives hold file names in Latin-1, damaged lists hold anything."""
    (tmp_path / "inner").mkdir()
    with open(os.fsencode(str(tmp_path / "inner")) + b"/M\xfcller.png", "wb"):
        pass
    with pytest.raises(UserError, match="not UTF-8"):
        storage.walk(str(tmp_path))
    for name in ("a\0b", "M\udcfcller.png"):
        with pytest.raises(UserError):
            storage.read_bytes(str(tmp_path / name))


def test_passwords_are_taken_out_of_texts() -> None:
    assert storage.redacted("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
    assert storage.redacted("see s3://KEY:secret@bucket/a, s3://b/c:d@e") == "see s3://KEY:***@bucket/a, s3://b/c:d@e"
    assert storage.redacted("http://host:5000/a@b") == "http://host:5000/a@b"
    assert storage.redacted("sqlite:///runs/mlflow.db") == "sqlite:///runs/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "cure"),
    [
        ("s3://AKIAKEY:hush@bucket/runs", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("S3://AKIAKEY:hu/sh+x@bucket", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3://AKIAKEY:hush@bucket/runs?region=eu-north-1", "AWS_SECRET_ACCESS_KEY"),
        ("gs://me:hush@bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs://:hush@account/box", "in the environment"),
    ],
)
def test_passwords_in_uris_are_refused_and_not_repeated(uri: str, cure: str) -> None:
    for use in (storage.normalise, storage.exists, storage.read_bytes, lambda u: storage.write_bytes(u, b"")):
        with pytest.raises(UserError, match=cure) as caught:
            use(uri)
        assert not [part for part in ("hush", "hu/sh", "AKIAKEY", "me:") if part in str(caught.value)]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/12:30@home/a@b.png",
        "s3://bucket/a@b",
        "s3://arn:aws:s3:eu-north-1:123:accesspoint/name/a@b",
        "gs://bucket/me:you@them",
        "hf://datasets/me/lines@v1:2/train@home",
        "/scans/me:you@them/page.png",
        "C:/scans/me@home.png",
    ],
)
def test_at_and_colon_in_names_are_no_passwords(uri: str) -> None:
    assert storage.normalise(uri).endswith(uri)
