"""A web server for tests, on this machine only, whose answers are functions."""

import http.server
import threading

import pytest


class Server(http.server.ThreadingHTTPServer):
    """Answers every path by the function of that name, and notes what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {}
        self.requests = []
        self.over = threading.Event()

    def url(self, name, answer):
        self.answers[f"/{name}"] = answer
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path[1:], self.headers.get("Range")))
        self.server.answers[self.path](self)

    def log_message(self, *_):
        pass

    def reply(self, status, body, length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not False:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    @property
    def start(self):
        """First byte that was asked for, or None."""
        wanted = self.headers.get("Range")
        return wanted and int(wanted.removeprefix("bytes=").removesuffix("-"))


def serve(handler, content):
    """Answer as a good server does, ranges included."""
    if handler.start is None:
        handler.reply(200, content)
    elif handler.start >= len(content):
        handler.reply(416, b"", Content_Range=f"bytes */{len(content)}")
    else:
        rest = content[handler.start :]
        handler.reply(206, rest, Content_Range=f"bytes {handler.start}-{len(content) - 1}/{len(content)}")


def status(code):
    return lambda handler: handler.reply(code, b"")


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()
