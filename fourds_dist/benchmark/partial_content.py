"""Relay before an S3 server that gives ranged reads the status 206, as S3 does.

rclone's server answers them with 200, which obstore refuses. `python -m fourds_dist.benchmark.partial_content URL`
relays to the server at URL, an http:// address, and prints its own. With a port as a second argument, further processes
share the address of the first.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

STEP_BYTES = 1 << 20
"""Most bytes that are received before they are sent on."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_port = True

    def __init__(self, upstream: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.connections: set[socket.socket] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Leave out the traceback of a connection that broke."""

    def server_close(self) -> None:
        """Close the connections, too."""
        super().server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)
        self.upstream = HTTPConnection(self.server.upstream)
        self.buffer = memoryview(bytearray(STEP_BYTES))

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        self.upstream.close()
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def relay(self) -> None:
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # with the host, which is part of the signature
            self.upstream.putheader(name, value)
        self.upstream.endheaders()
        left = int(self.headers.get("Content-Length", 0))
        while left and (data := self.rfile.read(min(left, STEP_BYTES))):
            self.upstream.send(data)
            left -= len(data)
        answer = self.upstream.getresponse()
        is_part = answer.status == 200 and "Content-Range" in answer.headers
        self.send_response_only(206 if is_part else answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if answer.length is None:  # a body in chunks
            body = answer.read()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.end_headers()
        while num_bytes := answer.readinto(self.buffer):
            self.wfile.write(self.buffer[:num_bytes])
        answer.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay


@contextmanager
def relay(upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Relay to the server at `upstream` from threads of this process; yield the relay's address.

    Args:
        tls: serve https:// with this context.
    """
    server = _Server(upstream)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    running = _Server(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"http://127.0.0.1:{running.server_port}", flush=True)
    running.serve_forever()
