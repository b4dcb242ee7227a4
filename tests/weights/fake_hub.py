"""A Hugging Face hub on this machine: the three requests that huggingface_hub makes for a model, and ways to fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves ``repositories``: {owner/name: {file: bytes}}.

    Attributes:
        asked: "METHOD path", with "bytes=N-" behind it where a range was asked for, of each request so far.
        tokens: the authorisations that requests had.
        agents: how requests introduced themselves.
        gated, secret: repositories whose files, or all of which, need a token.
        cut: {file: bytes after which the connection breaks, once}.
        status: an error that every request is answered with; 0 for none.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.agents: set[str] = set()
        self.gated: set[str] = set()
        self.secret: set[str] = set()
        self.cut: dict[str, int] = {}
        self.status = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fetched(self) -> list[str]:
        """The files that were asked for, without what was asked about them."""
        return [line.partition("/resolve/")[2].partition("/")[2] for line in self.asked if line.startswith("GET")
                and "/resolve/" in line]  # fmt: skip

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that the other side closes are no news."""


class Answers(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        hub, path = self.server, self.path.partition("?")[0].lstrip("/")
        wanted = self.headers.get("Range", "")
        hub.asked.append(f"{self.command} {path} {wanted}".strip())
        hub.agents.add(self.headers.get("User-Agent", ""))
        token = self.headers.get("Authorization", "")
        hub.tokens |= {token} if token else set()
        if hub.status:
            return self.refuse(hub.status, "")
        listing = path.startswith("api/models/")
        words = path.removeprefix("api/models/").split("/")
        repository, rest = "/".join(words[:2]), words[2:]
        if repository not in hub.repositories or (repository in hub.secret and not token):
            return self.refuse(404 if token else 401, "RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", "v1", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        files = hub.repositories[repository]
        if listing:
            siblings = [{"rfilename": name, "size": len(data), "blobId": "b"} for name, data in files.items()]
            return self.send(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode(), {}, body)
        file = "/".join(rest[2:])
        if repository in hub.gated and token != "Bearer good":
            return self.refuse(403 if token else 401, "GatedRepo")
        if file not in files:
            return self.refuse(404, "EntryNotFound")
        head = {"ETag": f'"{hashlib.sha1(files[file]).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        return self.send(files[file], head, body, file, int(wanted[6:-1]) if wanted else 0)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, data: bytes, head: dict[str, str], body: bool, file: str = "", start: int = 0) -> None:
        self.send_response(206 if start else 200)
        for key, value in head.items():
            self.send_header(key, value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body:
            stop = self.server.cut.pop(file, None)
            self.wfile.write(data[start : None if stop is None else start + stop])
            if stop is not None:
                self.wfile.flush()
                self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at ``asked``."""


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A hub that answers within."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
