"""A loopback server in the shape of Openverse's API, which serves pictures as well or as badly as it is told."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from gransam_sdk.training.sources.download import Manners
from gransam_sdk.training.sources.openverse import Openverse
from gransam_sdk.training.sources.source import ClassReport, SourceReport
from gransam_sdk.training.sources.web import WebConfig, WebSource

HASTY = Manners(timeout=0.4, deadline=0.6, attempts=2, backoff=0.001)

Handler = BaseHTTPRequestHandler
Reply = Callable[[Handler], None]


def picture(seed: int, width: int = 240, height: int = 180, format: str = "JPEG", quality: int = 90) -> bytes:
    """A picture of coloured patches that no other seed's looks like."""
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)
    image.save(buffer, format, **({"quality": quality} if format == "JPEG" else {}))
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def only(report: SourceReport) -> ClassReport:
    (found,) = report.classes
    return found


def send(
    body: bytes, kind: str | None = "image/jpeg", *, status: int = 200, length: int | None = -1, **headers: str
) -> Reply:
    """A reply; ``length`` is what it claims, -1 the truth, None nothing at all."""

    def reply(handler: Handler) -> None:
        handler.send_response(status)
        if kind is not None:
            handler.send_header("Content-Type", kind)
        if length is not None:
            handler.send_header("Content-Length", str(len(body) if length < 0 else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def in_turn(*replies: Reply) -> Reply:
    """One reply after the other, the last one again and again."""
    left = list(replies)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


def dripping(body: bytes, seconds: float, *, pieces: int = 1) -> Reply:
    """The body piece by piece, with a pause before each."""

    def reply(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        step = -(-len(body) // pieces)
        for start in range(0, len(body), step):
            time.sleep(seconds)
            handler.wfile.write(body[start : start + step])

    return reply


def endless(start: bytes, piece: bytes, seconds: float) -> Reply:
    """Bytes as they are, then a piece again and again with a pause before each, until nobody listens."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(start)
        while True:
            time.sleep(seconds)
            handler.wfile.write(piece)

    return reply


class OpenverseServer:
    """Search results by query, replies by path, and what was asked for.

    Attributes:
        results: Results of each query, in order.
        replies: What answers at a path, instead of 404; ``/v1/images/`` may be taken over too.
        asked: (path, query) of every request.
        port: Where it listens.
        root: Its address.
        agents: User agents that were met.
        hosts: Host headers that were met, in order.
    """

    def __init__(self) -> None:
        self.results: dict[str, list[Any]] = {}
        self.replies: dict[str, Reply] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.agents: set[str] = set()
        self.hosts: list[str] = []
        self.deepest = 12
        server = self

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                words = {name: values[0] for name, values in parse_qs(parts.query).items()}
                server.asked.append((parts.path, words))
                server.agents.add(self.headers["User-Agent"])
                server.hosts.append(self.headers["Host"])
                known = server.search if parts.path == "/v1/images/" else send(b"", status=404)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
                    server.replies.get(parts.path, known)(self)

            def do_CONNECT(self) -> None:
                """As a proxy does; this server is at the other end as well."""
                server.asked.append((self.path, {}))
                self.send_response(200)
                self.end_headers()
                self.close_connection = False

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self._http.daemon_threads = False  # so that closing waits for them
        self.port = int(self._http.server_address[1])
        self.root = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=lambda: self._http.serve_forever(poll_interval=0.02))
        self._thread.start()

    def search(self, handler: Handler) -> None:
        words = self.asked[-1][1]
        found = [item for item in self.results.get(words["q"], []) if self._matches(item, words)]
        size, page = int(words["page_size"]), int(words["page"])
        if size > 20:
            send(b'{"detail": "page_size may not exceed 20"}', "application/json", status=401)(handler)
        elif page > self.deepest:
            send(b'{"detail": "Invalid page."}', "application/json", status=404)(handler)
        else:
            answer = {
                "result_count": len(found),
                "page_count": -(-len(found) // size),
                "page_size": size,
                "page": page,
                "results": found[(page - 1) * size : page * size],
            }
            send(json.dumps(answer).encode(), "application/json")(handler)

    def _matches(self, item: Any, words: dict[str, str]) -> bool:
        return not isinstance(item, dict) or item.get("license") in words["license"].split(",")

    def offer(self, query: str, name: str, reply: Reply | None, **changes: object) -> dict[str, Any]:
        """Adds a result to a query and, unless it is None, the reply at its address."""
        item = {
            "id": f"00000000-0000-4000-8000-{name:0>12}",
            "title": f"Title of {name}",
            "indexed_on": "2024-01-01T00:00:00Z",
            "foreign_landing_url": f"https://photos.example/{name}",
            "url": f"{self.root}/files/{name}",
            "creator": "A. Person",
            "creator_url": "https://photos.example/people/a",
            "license": "by-sa",
            "license_version": "4.0",
            "license_url": "https://creativecommons.org/licenses/by-sa/4.0/",
            "provider": "flickr",
            "source": "flickr",
            "category": None,
            "filesize": None,
            "filetype": None,
            "tags": [],
            "attribution": f'"Title of {name}" by A. Person is licensed under CC BY-SA 4.0.',
            "mature": False,
            "height": 180,
            "width": 240,
        } | changes
        self.results.setdefault(query, []).append(item)
        if reply is not None:
            self.replies[f"/files/{name}"] = reply
        return item

    def times_asked(self) -> Counter[str]:
        """How often each file was asked for, by name, and ``search``."""
        return Counter("search" if path == "/v1/images/" else path.rpartition("/")[2] for path, _ in self.asked)

    def source(self, *, page_size: int = 20, **changes: Any) -> WebSource:
        """A web source that searches here, in a hurry, and believes that pictures may lie here too."""
        catalogue = Openverse(base=f"{self.root}/v1/", interval=0.0, page_size=page_size)
        settings: dict[str, Any] = {"interval": 0.0, "manners": HASTY, "allow_private": True}
        return WebSource(WebConfig(catalogue=catalogue, **{**settings, **changes}))

    def fill(self, query: str, count: int, first: int = 0) -> None:
        """Adds results to a query, each with its own picture."""
        for number in range(first, first + count):
            self.offer(query, str(number), send(picture(number)))

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
