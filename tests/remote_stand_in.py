"""Stand-ins for GitHub and the Hugging Face hub on this machine: ``pytest_plugins = ["remote_stand_in"]``."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

LFS_FROM = 100
"""Bytes from which the stand-in's hub keeps a file in LFS, with a sha256."""


class Hub:
    """Datasets, and how the hub misbehaves."""

    def __init__(self) -> None:
        self.datasets: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.break_after: list[int] = []
        """Bytes after which the next answers of files break off, in order."""
        self.tampered: dict[str, bytes] = {}
        """What is sent for a path instead of its content."""
        self.refuses_ranges = False
        self.status: int | None = None
        """Answer everything with this status."""
        self.page_size = 1000

    def add(self, repository: str, files: dict[str, bytes]) -> str:
        """Publish a dataset; return its commit."""
        self.datasets[repository] = dict(files)
        return self.commit(repository)

    def commit(self, repository: str) -> str:
        """The commit of what the dataset holds now."""
        return hashlib.sha1(repr(sorted(self.datasets[repository].items())).encode()).hexdigest()

    def downloads(self) -> list[str]:
        """The requests of files so far."""
        return [request for request in self.requests if "/resolve/" in request]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET(json.loads(body))

    def do_GET(self, body: dict[str, list[str]] | None = None) -> None:
        self.hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
        if self.hub.status is not None:
            return self._send(self.hub.status, b"")
        path = unquote(urlsplit(self.path).path)
        for repository, files in self.hub.datasets.items():
            api, resolve = f"/api/datasets/{repository}", f"/datasets/{repository}/resolve/"
            if path == api or path.startswith(f"{api}/"):
                return self._api(repository, files, path.removeprefix(api).strip("/"), body)
            if path.startswith(resolve):
                revision, name = path.removeprefix(resolve).split("/", 1)
                if self._knows(repository, revision) and name in files:
                    return self._file(self.hub.tampered.get(name, files[name]), repository)
        return self._send(404, b'{"error": "Repository not found"}', **{"X-Error-Code": "RepoNotFound"})

    def _knows(self, repository: str, revision: str) -> bool:
        return revision in ("main", self.hub.commit(repository))

    def _api(self, repository: str, files: dict[str, bytes], asked: str, body: dict[str, list[str]] | None) -> None:
        what, _, rest = asked.partition("/")
        revision, _, folder = rest.partition("/")
        if what and not self._knows(repository, revision):
            return self._send(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        if what in ("", "revision"):
            facts = {"id": repository, "sha": self.hub.commit(repository), "siblings": [], "tags": []}
            return self._json(facts)
        if what == "paths-info":
            assert body is not None
            return self._json([item for item in self._items(files) if item["path"] in body["paths"]])
        found = [item for item in self._items(files) if self._below(str(item["path"]), folder)]
        if not found:
            return self._send(404, b"{}", **{"X-Error-Code": "EntryNotFound"})
        query = urlsplit(self.path).query.lower()
        if "recursive=true" not in query:
            found = [item for item in found if "/" not in str(item["path"])[len(folder) :].strip("/")]
        start = int(query.split("cursor=")[1]) if "cursor=" in query else 0
        end = start + self.hub.page_size
        more = {}
        if end < len(found):
            more["Link"] = f'<{self.path.split("&cursor")[0]}&cursor={end}>; rel="next"'
        return self._json(found[start:end], **more)

    @staticmethod
    def _below(path: str, folder: str) -> bool:
        return not folder or path.startswith(f"{folder}/")

    @staticmethod
    def _items(files: dict[str, bytes]) -> list[dict[str, object]]:
        folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
        items: list[dict[str, object]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders
        ]
        for path, content in files.items():
            item: dict[str, object] = {"type": "file", "size": len(content), "path": path}
            item["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if len(content) >= LFS_FROM:
                item["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            items.append(item)
        return sorted(items, key=lambda item: str(item["path"]))

    def _file(self, content: bytes, repository: str) -> None:
        etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": self.hub.commit(repository)}
        asked = self.headers.get("Range", "")
        if not asked or self.hub.refuses_ranges:
            return self._send(200, content, **etag)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(content)), len(content) - 1)
        shown = {"Content-Range": f"bytes {start}-{end}/{len(content)}", **etag}
        return self._send(206, content[start : end + 1], **shown)

    def _json(self, value: object, **headers: str) -> None:
        self._send(200, json.dumps(value).encode(), **{"Content-Type": "application/json", **headers})

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if "/resolve/" in self.path and self.hub.break_after:
            content = content[: self.hub.break_after.pop(0)]
            self.close_connection = True
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on a free loopback port, with ``HF_ENDPOINT`` set to it."""
    stand_in = Hub()
    handler = type("Handler", (_Handler,), {"hub": stand_in})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield stand_in
    server.shutdown()
    thread.join()
    server.server_close()


class Repository:
    """A bare git repository that is fetched from over ``file://``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = folder.as_uri()
        self._work = folder.with_name("work")
        self._git("init", "--quiet", "--bare", str(folder), cwd=folder.parent)
        self._git("clone", "--quiet", str(folder), str(self._work), cwd=folder.parent)

    def commit(self, files: dict[str, bytes]) -> str:
        """Commit and publish files; return the commit."""
        for name, content in files.items():
            path = self._work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._git("add", "--all", cwd=self._work)
        self._git("commit", "--quiet", "--message=more", cwd=self._work)
        self._git("push", "--quiet", "origin", "HEAD", cwd=self._work)
        return self._git("rev-parse", "HEAD", cwd=self._work).strip()

    @staticmethod
    def _git(*arguments: str, cwd: Path) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
        done = subprocess.run(["git", *who, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
        return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty git repository with a ``file://`` address."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "origin" / "repository.git"
    folder.parent.mkdir()
    return Repository(folder)
