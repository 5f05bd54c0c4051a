"""A stand-in for the hub on the loopback address: what its client library asks when it downloads.

HEAD and GET of `/datasets/<id>/resolve/<revision>/<file>`, with ETag, X-Repo-Commit and ranges; the
same of models without `/datasets`, and what `/api/models/<id>` says of them, or
`/api/datasets/<id>`.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from kdbench.config.schema import Model

COMMIT = "c" * 40


@dataclass
class Hub:
    """What the server holds, and what was asked of it.

    Attributes:
        files: content by `<id>/<file>`.
        breaks: so many of the next GET requests end after half of the bytes.
        lies: so many of the next whole GET answers have one byte changed.
        stalls: GET answers stop after half of the bytes and wait, while this stands.
        asked: (method, path, range) of every request.
    """

    files: dict[str, bytes]
    breaks: int = 0
    lies: int = 0
    stalls: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    """The hub, listening on a free port of the loopback address while the block runs."""
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, hub)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stalls = False
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    asked_range = handler.headers.get("Range", "")
    hub.asked.append((handler.command, handler.path, asked_range))
    if handler.path.startswith("/api/"):
        _describe(handler, hub)
        return
    path = handler.path.removeprefix("/datasets/").removeprefix("/")
    repository, _, rest = path.partition("/resolve/")
    content = hub.files.get(f"{repository}/{rest.partition('/')[2]}")
    headers = {"X-Repo-Commit": COMMIT}
    if content is None:
        _begin(handler, 404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        return
    first = int(asked_range.removeprefix("bytes=").partition("-")[0] or 0)
    body = content[first:]
    headers |= {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
    if asked_range:
        headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
    _begin(handler, 206 if asked_range else 200, body, headers)
    if handler.command == "HEAD":
        return
    if hub.lies and not asked_range:
        hub.lies -= 1
        body = b"[" + body[1:]
    if hub.stalls:
        handler.wfile.write(body[: len(body) // 2])
        while hub.stalls:
            time.sleep(0.05)
        handler.close_connection = True
        return
    if hub.breaks:
        hub.breaks -= 1
        body = body[: len(body) // 2]
        handler.close_connection = True
    handler.wfile.write(body)


def _describe(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    """A repository's commit, or the list of its files; or that there is no such repository."""
    address = handler.path.partition("?")[0].split("/")
    kind, name, asked = address[2], "/".join(address[3:5]), address[5:]
    files = {
        path.removeprefix(f"{name}/"): content
        for path, content in hub.files.items()
        if path.startswith(f"{name}/")
    }
    if asked[:1] == ["paths-info"]:
        length = int(handler.headers["Content-Length"])
        paths = parse_qs(handler.rfile.read(length).decode())["paths"]
        files = {path: content for path, content in files.items() if path in paths}
    deep = asked[:1] != ["tree"] or kind == "models" or "recursive=true" in handler.path.lower()
    below = f"{'/'.join(asked[2:])}/".lstrip("/") if asked[:1] == ["tree"] else ""
    folders = {
        below + path.removeprefix(below).partition("/")[0]
        for path in files
        if path.startswith(below) and "/" in path.removeprefix(below)
    }
    tree: list[dict[str, object]] = [
        {"type": "file", "path": file, "size": len(text), "oid": hashlib.sha1(text).hexdigest()}
        for file, text in files.items()
        if file.startswith(below) and (deep or "/" not in file.removeprefix(below))
    ]
    tree += [{"type": "directory", "path": folder, "oid": "0" * 40} for folder in sorted(folders)]
    siblings = [{"rfilename": file} for file in files]
    whole = {"id": name, "sha": COMMIT} | ({"siblings": siblings} if kind == "datasets" else {})
    if not files and asked[:1] != ["paths-info"]:
        _begin(handler, 404, b"", {"X-Error-Code": "RepoNotFound"})
        return
    body = json.dumps(tree if asked[:1] in (["tree"], ["paths-info"]) else whole).encode()
    _begin(handler, 200, body, {"Content-Type": "application/json"})
    handler.wfile.write(body)


def _begin(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()


def ask_hub(endpoint: str, home: Path, *models: Model, offline: bool = False) -> list[str]:
    """What a fresh process gets for each model: its folder, or the message of the refusal."""
    code = (
        "import json, sys\n"
        "from kdbench.base.errors import UserError\n"
        "from kdbench.config.schema import Model\n"
        "from kdbench.models.weights import checkpoint\n"
        "for fields in json.load(sys.stdin):\n"
        "    try: print(checkpoint(Model(**fields), 'teacher'))\n"
        "    except UserError as error: print(str(error).replace('\\n', ' '))\n"
    )
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    said = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([model.model_dump(exclude_defaults=True) for model in models]),
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.splitlines()
