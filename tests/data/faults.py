"""A proxy that harms what a server answers, as networks and object stores do: refusals, resets, silence, cuts, flips.

Which request meets which fault is drawn from the seed, the request and how often it was made before: not from time, nor
from the order in which threads come. Only reads of shards and of their indices are harmed: a run that cannot even read
its manifest is refused at once.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KINDS = ("refuse", "reset", "hang", "cut", "flip")

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class Proxy:
    """Proxy between a client and `upstream`.

    Args:
        rates: share of reads with each kind of fault: `refuse` answers 503, `reset` breaks the connection, `hang`
            does not answer, `cut` ends in the middle of the object, `flip` changes a byte of it.

    `faults` counts what was done, `away` refuses every connection while it is set, `comes_back_after` so many at most.
    """

    def __init__(self, upstream: str, rates: Mapping[str, float], seed: int = 0) -> None:
        assert set(rates) <= set(KINDS)
        self.upstream = urlsplit(upstream).netloc
        self.rates = dict(rates)
        self.seed = seed
        self.faults: Counter[str] = Counter()
        self.away = threading.Event()
        self.comes_back_after = sys.maxsize
        self.closing = threading.Event()
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def draw(self, request: str) -> tuple[str | None, random.Random]:
        """The fault that a request meets, and a generator for its details."""
        with self._lock:
            self._seen[request] += 1
            generator = random.Random(f"{self.seed} {request} {self._seen[request]}")
            at = generator.random()
            for kind, rate in self.rates.items():
                if at < rate:
                    self.faults[kind] += 1
                    return kind, generator
                at -= rate
        return None, generator


@contextmanager
def serving(proxy: Proxy) -> Iterator[str]:
    """Run the proxy; its endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_one_request(self) -> None:
            with suppress(ConnectionError):
                super().handle_one_request()

        def forward(self) -> None:
            if proxy.away.is_set():
                proxy.faults["away"] += 1
                if proxy.faults["away"] >= proxy.comes_back_after:
                    proxy.away.clear()
                self.reset()
                return
            is_read = self.command == "GET" and self.path.endswith((".tar", ".index"))
            path = self.path.partition("/set/")[2]  # a bucket's name depends on the tests that ran before
            fault, generator = proxy.draw(f"{path} {self.headers.get('Range')}") if is_read else (None, None)
            if fault == "reset":
                self.reset()
            elif fault == "hang":
                proxy.closing.wait(20)
                self.close_connection = True
            elif fault == "refuse":
                self.answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
            else:
                status, headers, body = self.ask_until_answered()
                if fault == "flip" and body and generator:
                    at = generator.randrange(len(body))
                    body = body[:at] + bytes([body[at] ^ (1 + generator.randrange(255))]) + body[at + 1 :]
                if fault == "cut" and body:
                    self.answer(status, headers, body, send=len(body) // 2)
                    self.close_connection = True
                else:
                    self.answer(status, headers, body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

        def ask_until_answered(self) -> tuple[int, dict[str, str], bytes]:
            """A busy machine's real server may drop a connection: that is none of the faults that are counted."""
            for tries_left in (2, 1, 0):
                try:
                    return self.ask()
                except (OSError, http.client.HTTPException):
                    if self.command not in ("GET", "HEAD") or not tries_left:
                        raise
            raise AssertionError

        def ask(self) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(proxy.upstream, timeout=20)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the host too: it is part of the signature
                connection.putheader(name, value)
            connection.endheaders(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            response = connection.getresponse()
            body = response.read()
            connection.close()
            dropped = {"connection", "transfer-encoding", "content-length", "date", "server"}
            headers = {k: v for k, v in response.getheaders() if k.lower() not in dropped}
            if self.command == "HEAD":
                headers["Content-Length"] = response.getheader("Content-Length", "0")
            return response.status, headers, body

        def answer(self, status: int, headers: dict[str, str], body: bytes, send: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:send])

        def reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def finish(self) -> None:
            with suppress(OSError, ValueError):  # the connection may have been reset
                super().finish()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128  # of 5, as by default, a busy machine's connections are refused

        def handle_error(self, request: object, client_address: object) -> None:
            del request, client_address

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
