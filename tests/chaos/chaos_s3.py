"""An S3 server (moto) behind a proxy that misbehaves when told to, as a process of its own.

``PUT /-/chaos`` with JSON ``{"mode": ..., "share": ...}`` sets what is done to that share of the requests, and answers
how many were struck so far. Modes: ``well``, ``error`` (HTTP 500), ``slow`` (seconds until the answer), ``reset``
(the connection breaks in the middle of the answer), ``away`` (no connection at all).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct

SLOW_SECONDS = (1.0, 5.0)
ERROR = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>chaos</Message></Error>"


class Proxy:
    """Hands requests on, one per connection, and counts those that it strikes."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self._target = (host, port)
        self._rng = random.Random(seed)
        self._mode, self._share, self._struck = "well", 0.0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        try:
            await self._request(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away: it was killed
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(reader, headers)
        if first.startswith("PUT /-/chaos "):
            return self._command(json.loads(body), writer)
        strikes = self._mode != "well" and self._rng.random() < self._share
        self._struck += strikes
        if strikes and self._mode == "away":
            return self._break(writer)
        if strikes and self._mode == "error":
            return self._answer(writer, b"500 Internal Server Error", b"application/xml", ERROR)
        if strikes and self._mode == "slow":
            await asyncio.sleep(self._rng.uniform(*SLOW_SECONDS))
        there, back = await asyncio.open_connection(*self._target)
        kept = [line for line in lines if line and not line.lower().startswith(("connection:", "expect:"))]
        back.write("\r\n".join([first, *kept, "Connection: close", "", ""]).encode("latin-1") + body)
        answer = await there.read(-1)
        back.close()
        if strikes and self._mode == "reset":
            writer.write(answer[: self._rng.randrange(len(answer))])
            await writer.drain()
            return self._break(writer)
        writer.write(answer)
        await writer.drain()

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await reader.readexactly(int(headers.get("content-length") or 0))
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            part = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
            body += size + part
            if len(part) == 2:
                return body

    def _command(self, asked: dict[str, object], writer: asyncio.StreamWriter) -> None:
        self._mode, self._share = str(asked["mode"]), float(str(asked["share"]))
        self._answer(writer, b"200 OK", b"application/json", json.dumps(self._struck).encode())

    @staticmethod
    def _answer(writer: asyncio.StreamWriter, status: bytes, kind: bytes, body: bytes) -> None:
        head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        writer.write(head % (status, kind, len(body)) + body)

    @staticmethod
    def _break(writer: asyncio.StreamWriter) -> None:
        """Close with a reset, not with a farewell."""
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def main(port: int, seed: int) -> None:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    server = await asyncio.start_server(Proxy(*moto.get_host_and_port(), seed).serve, "127.0.0.1", port, limit=2**20)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("--port", type=int, required=True)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    asyncio.run(main(given.port, given.seed))
