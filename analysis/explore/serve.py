"""The live page: a server of this machine alone, which only reads, and reads what is asked for."""

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from plotly.offline import get_plotlyjs

from stepscope.analysis.explore.answers import ANSWERS, answer
from stepscope.analysis.explore.document import document
from stepscope.analysis.explore.pictures import media_type
from stepscope.analysis.explore.source import ExploreError, Source
from stepscope.hooks.errors import StepscopeError

HOST = "127.0.0.1"
HERE = {HOST, "localhost"}
PORT = 8421


class Explorer(ThreadingHTTPServer):
    """A server for one or two runs. port: 0 for any that is free."""

    daemon_threads = True

    def __init__(self, sources: Sequence[Source], port: int) -> None:
        self.sources = tuple(sources)
        super().__init__((HOST, port), Handler)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers to GET alone. No path names a file: there is a fixed list of them."""

    protocol_version = "HTTP/1.1"

    @property
    def sources(self) -> tuple[Source, ...]:
        assert isinstance(self.server, Explorer)
        return self.server.sources

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in HERE:  # a page of another site whose name was pointed at this machine
            self.send(HTTPStatus.FORBIDDEN, "text/plain", b"this server answers this machine alone")
            return
        parts = urlsplit(self.path)
        name = parts.path.removeprefix("/")
        try:
            if name == "":
                page = document([source.name for source in self.sources])
                self.send(HTTPStatus.OK, "text/html; charset=utf-8", page.encode())
            elif name == "plotly.js":
                self.send(HTTPStatus.OK, "text/javascript", get_plotlyjs().encode(), kept=True)
            elif name in ANSWERS:
                self.reply(answer(self.sources, name, dict(parse_qsl(parts.query))))
            else:
                self.refuse(HTTPStatus.NOT_FOUND, f"nothing at {parts.path}")
        except StepscopeError as error:
            self.refuse(HTTPStatus.NOT_FOUND, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except (
            Exception
        ) as error:  # a run that is being written or is damaged: the next may be well
            said = (str(error).strip().splitlines() or [""])[0]
            self.refuse(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"this part of the run cannot be read now ({type(error).__name__}: {said[:200]})",
            )

    def reply(self, found: dict[str, Any] | bytes) -> None:
        if isinstance(found, bytes):
            self.send(HTTPStatus.OK if found else HTTPStatus.NO_CONTENT, media_type(found), found)
        else:
            self.json(HTTPStatus.OK, found)

    def refuse(self, status: HTTPStatus, text: str) -> None:
        self.json(status, {"error": text})

    def json(self, status: HTTPStatus, values: Any) -> None:
        body = json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
        self.send(status, "application/json", body)

    def send(self, status: HTTPStatus, kind: str, body: bytes, *, kept: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=86400" if kept else "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


def start(sources: Sequence[Source], port: int | None) -> Explorer:
    """A server on the port that was named, or where none was, on the usual one or any that is free.

    Raises ExploreError where the named port is taken.
    """
    try:
        return Explorer(sources, PORT if port is None else port)
    except OSError as error:
        if port is None:
            return Explorer(sources, 0)
        raise ExploreError(
            f"port {port} cannot be used ({error.strerror}): name another, or leave --port out"
        ) from error


def serve(
    explorer: Explorer, opened: Callable[[str], object] | None, say: Callable[[str], None]
) -> None:
    """Answer until Ctrl-C. opened: called with the address once it answers; None without a browser."""
    say(f"{explorer.address} shows {', '.join(s.text for s in explorer.sources)}; Ctrl-C ends it")
    if opened is not None:
        opened(explorer.address)
    try:
        explorer.serve_forever()
    except KeyboardInterrupt:
        say("ended")
    finally:
        explorer.server_close()
