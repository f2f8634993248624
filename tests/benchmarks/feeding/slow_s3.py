"""A real S3 server (moto) in a process of its own that waits before it answers.

    python tests/benchmarks/feeding/slow_s3.py MILLISECONDS

Prints its URL. The wait stands for the way there and back; requests in flight at once wait at once.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class KeepAlive(WSGIRequestHandler):
    """As S3 does: a new connection for every request would cost more than the request."""

    protocol_version = "HTTP/1.1"


def main(seconds: float) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(seconds)
        return moto(environment, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=KeepAlive)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(float(sys.argv[1]) / 1000)
