"""A loopback server of weights that honours ranges as RFC 9110 says, and misbehaves when it is told to."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Handler = BaseHTTPRequestHandler
Reply = Callable[["WeightsServer", Handler], None]


@dataclass(frozen=True)
class Asked:
    """A request that was met."""

    path: str
    range: str | None
    if_range: str | None
    agent: str


@dataclass(frozen=True)
class Answered:
    """How a good server would answer: status, headers, and the bytes of the body."""

    status: int
    headers: dict[str, str]
    body: bytes


class WeightsServer:
    """Serves one file, at every path.

    Attributes:
        body: The file.
        etag: Its version; empty for none.
        replies: What answers the next requests instead, each once; the last one goes on if ``stubborn``.
        asked: Every request.
        sent: Bytes of bodies that were sent.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.etag = '"first"'
        self.replies: list[Reply] = []
        self.stubborn = False
        self.asked: list[Asked] = []
        self.sent = 0
        server = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = self.headers
                server.asked.append(
                    Asked(self.path, headers.get("Range"), headers.get("If-Range"), headers["User-Agent"])
                )
                reply: Reply = whole
                if server.replies:
                    last = server.stubborn and len(server.replies) == 1
                    reply = server.replies[0] if last else server.replies.pop(0)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
                    reply(server, self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self._http.daemon_threads = False  # so that closing waits for them
        self.port = int(self._http.server_address[1])
        self.root = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=lambda: self._http.serve_forever(poll_interval=0.02))
        self._thread.start()

    def answer(self, handler: Handler) -> Answered:
        """What a good server would say."""
        headers = {"Content-Type": "application/octet-stream", **({"ETag": self.etag} if self.etag else {})}
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        if wanted is None or handler.headers.get("If-Range") != self.etag:
            return Answered(200, headers, self.body)
        start = int(wanted[1])
        if start >= len(self.body):
            return Answered(416, {"Content-Range": f"bytes */{len(self.body)}"}, b"")
        said = {"Content-Range": f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"}
        return Answered(206, headers | said, self.body[start:])

    def always(self, reply: Reply) -> None:
        """From now on everything is answered so."""
        self.replies, self.stubborn = [reply], True

    def write(self, handler: Handler, data: bytes) -> None:
        """Sends bytes of a body, and counts them."""
        handler.wfile.write(data)
        self.sent += len(data)

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def send(server: WeightsServer, handler: Handler, answer: Answered, *, length: int | None = -1) -> None:
    """Sends an answer's head; ``length`` is what it claims, -1 the truth, None nothing at all."""
    handler.send_response(answer.status)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    if length is not None:
        handler.send_header("Content-Length", str(len(answer.body) if length < 0 else length))
    handler.end_headers()


def whole(server: WeightsServer, handler: Handler) -> None:
    """As a good server does."""
    answer = server.answer(handler)
    send(server, handler, answer)
    server.write(handler, answer.body)


def breaking(count: int) -> Reply:
    """The connection ends after so many bytes of the body."""

    def reply(server: WeightsServer, handler: Handler) -> None:
        answer = server.answer(handler)
        send(server, handler, answer)
        server.write(handler, answer.body[:count])

    return reply


def stalling(count: int, seconds: float) -> Reply:
    """Nothing more comes after so many bytes of the body, for some time; then the rest would."""

    def reply(server: WeightsServer, handler: Handler) -> None:
        answer = server.answer(handler)
        send(server, handler, answer)
        server.write(handler, answer.body[:count])
        handler.wfile.flush()
        time.sleep(seconds)
        server.write(handler, answer.body[count:])

    return reply


def dripping(piece: int, seconds: float) -> Reply:
    """The body in pieces, with a pause before each."""

    def reply(server: WeightsServer, handler: Handler) -> None:
        answer = server.answer(handler)
        send(server, handler, answer)
        for start in range(0, len(answer.body), piece):
            time.sleep(seconds)
            server.write(handler, answer.body[start : start + piece])

    return reply


def claiming(length: int | None, body: bytes | None = None, *, kind: str = "application/octet-stream") -> Reply:
    """Status 200 with a length of its own invention, and a body of another."""

    def reply(server: WeightsServer, handler: Handler) -> None:
        answer = Answered(200, {"Content-Type": kind, "ETag": server.etag}, server.body if body is None else body)
        send(server, handler, answer, length=length)
        server.write(handler, answer.body)

    return reply


def status(code: int, **headers: str) -> Reply:
    """No weights, but a status."""

    def reply(server: WeightsServer, handler: Handler) -> None:
        send(server, handler, Answered(code, {name.replace("_", "-"): text for name, text in headers.items()}, b""))

    return reply


def deaf(server: WeightsServer, handler: Handler) -> None:
    """The whole file, whatever range was asked for."""
    claiming(-1)(server, handler)


def part(content_range: str, start: int, *, etag: str | None = None) -> Reply:
    """Status 206 with a range of its own invention."""

    def reply(server: WeightsServer, handler: Handler) -> None:
        said = {"Content-Range": content_range, "ETag": server.etag if etag is None else etag}
        answer = Answered(206, said, server.body[start:])
        send(server, handler, answer)
        server.write(handler, answer.body)

    return reply
