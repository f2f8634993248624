"""A store that has its bad days: 500s, slow answers, connections that break - between a job and a real S3 server."""

from __future__ import annotations

import http.client
import io
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr_ray import storage
from htr_ray.corpus.images import encode_png
from htr_ray.corpus.prepare import prepare
from htr_ray.corpus.read import Corpus
from htr_ray.corpus.report import summarise
from htr_ray.corpus.schema import SPLITS
from htr_ray.errors import UserError

pytest_plugins = ["s3_server"]
LINES, FILES = 400, 8
_ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Please try again.</Message></Error>"


class Weather:
    """What happens to requests on their way: one in ``every`` meets the next fault of ``faults``."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.every = 0
        self.faults: tuple[str, ...] = ("500", "slow", "dropped", "half")
        self.only = ""
        """Faults for requests of this kind (PUT, ...); empty: all."""
        self.met: Counter[str] = Counter()
        self._turns: Iterator[str] = iter(())
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    def turn(self, every: int, *faults: str, only: str = "") -> None:
        with self._lock:
            self.every, self.faults, self.only = every, faults, only
            self._turns = itertools.cycle(faults)

    def fault(self, method: str) -> str:
        with self._lock:
            if not self.every or (self.only and method not in self.only.split()) or next(self._count) % self.every:
                return ""
            fault = next(self._turns)
            self.met[fault] += 1
            return fault


def _handler(weather: Weather) -> type[BaseHTTPRequestHandler]:
    host = urlsplit(weather.endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self._body()
            fault = weather.fault(self.command)
            if fault == "dropped":
                self.close_connection = True
                self.connection.close()
                return
            if fault == "500":
                self._answer(500, [("Content-Type", "application/xml")], b"" if self.command == "HEAD" else _ERROR)
                return
            if fault == "slow":
                time.sleep(1.5)
            upstream = http.client.HTTPConnection(host, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
            upstream.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = upstream.getresponse()
            content = answer.read()
            passed = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")]
            self._answer(answer.status, passed, content, half=fault == "half" and self.command == "GET")
            upstream.close()

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() != "content-length" or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            elif not any(name.lower() == "content-length" for name, _ in headers):
                self.send_header("Content-Length", "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                self.close_connection = True
                self.wfile.flush()
                self.connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

    return Handler


@pytest.fixture
def weather(s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weather]:
    """The way to the store of the fixture ``s3``; clear until told otherwise."""
    found = Weather(s3_endpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield found
    server.shutdown()
    server.server_close()


def _upload(uri: str) -> dict[str, bytes]:
    """Some files of lines with images of their own; returns image by id."""
    rng = np.random.default_rng(0)
    images = {f"l{i}": encode_png(rng.integers(0, 256, (20, 60), dtype=np.uint8)) for i in range(LINES)}
    rows = [
        {"id": id_, "image": image, "text": f"line {i}", "writer": f"w{i % 20}"}
        for i, (id_, image) in enumerate(images.items())
    ]
    for number in range(FILES):
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows[number::FILES]), sink, row_group_size=10)
        storage.write_bytes(f"{uri}/part-{number}.parquet", sink.getvalue())
    return images


def _images(corpus: Corpus) -> dict[str, bytes]:
    return {
        row["id"]: row["image"]
        for split in SPLITS
        for file in corpus.files(split)
        for group in range(pq.ParquetFile(io.BytesIO(storage.read_bytes(file))).metadata.num_row_groups)
        for row in corpus.read_row_group(file, group, ("id", "image")).to_pylist()
    }


@pytest.mark.parametrize("fault", ["500", "slow", "dropped", "half"])
def test_faults_that_pass_are_not_noticed(s3: str, weather: Weather, fault: str) -> None:
    """Reading by worker processes and writing, with every sixth request in trouble: all lines, byte for byte."""
    images = _upload(f"{s3}/raw")
    weather.turn(6, fault, only="GET" if fault == "half" else "")
    report = prepare("parquet", f"{s3}/raw", f"{s3}/corpora", "c")
    weather.turn(0)
    assert weather.met[fault] >= 5, "there was trouble"
    assert report["lines"] == LINES and report["set_aside"] == {} and report["problems"] == []
    corpus = Corpus.open(f"{s3}/corpora/c")
    assert _images(corpus) == images and summarise(corpus, decode=True)["problems"] == []


@pytest.mark.parametrize("fault", ["500", "dropped"])
def test_a_store_that_stays_down_leaves_the_old_corpus(s3: str, weather: Weather, fault: str) -> None:
    """Down while the new corpus is written: word of it, not a stack trace; the old one whole, and replaced later."""
    images = _upload(f"{s3}/raw")
    prepare("parquet", f"{s3}/raw", f"{s3}/corpora", "c")
    old = storage.read_bytes(f"{s3}/corpora/c/corpus.json")

    def down_when_it_writes(lines: int, share: float) -> None:
        if share > 0.9:
            weather.turn(1, fault, only="PUT POST")

    with pytest.raises(UserError, match=r"^s3://.*/corpora/c/") as caught:
        prepare("parquet", f"{s3}/raw", f"{s3}/corpora", "c", seed=1, progress=down_when_it_writes)
    assert isinstance(caught.value, storage.Unavailable)
    weather.turn(0)
    assert storage.read_bytes(f"{s3}/corpora/c/corpus.json") == old
    assert _images(Corpus.open(f"{s3}/corpora/c")) == images
    assert prepare("parquet", f"{s3}/raw", f"{s3}/corpora", "c", seed=1)["seed"] == 1
    parts = [name for name in storage.walk(f"{s3}/corpora/c") if name.endswith(".parquet")]
    assert len(parts) == 3, "nothing of the attempt is left"
