"""FileServer: files by HTTP on loopback, from a server that may be slow, busy or unreliable."""

import email.utils
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OLD_S = 1_700_000_000  # a time of change that is long ago


class FileServer:
    """A server of `files`, bytes by name.

    `n_cut` and `n_busy` hold, by name, how many of the next responses are cut off in the middle, or
    are errors with status 503. With `etags` and `times` False, the server reports no state of
    files; with `ranges` True, it sends parts of files. `on_get` is called with the name before a
    file is sent. `requests` counts requests by method and name.
    """

    def __init__(self):
        self.files, self.changed_s = {}, {}
        self.n_cut, self.n_busy, self.requests = Counter(), Counter(), Counter()
        self.etags = self.times = True
        self.ranges = False
        self.delay_s = 0.0
        self.on_get = lambda name: None

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"files_of": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()

    def url(self, name):
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def n_sent(self, name=None):
        """Return how often a file, or any, was downloaded."""
        sent = ((of, n) for (method, of), n in self.requests.items() if method == "GET")
        return sum(n for of, n in sent if name in (None, of))


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait; others would try again after a second


class _Handler(BaseHTTPRequestHandler):
    files_of: FileServer

    def do_HEAD(self):
        self._send_head("HEAD")

    def do_GET(self):
        server, name = self.files_of, self._name()
        server.on_get(name)
        start, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        part = slice(int(start), int(end) + 1) if server.ranges and end else slice(None)
        if self._send_head("GET", part):
            content = server.files[name][part]
            if server.n_cut[name] > 0:
                server.n_cut[name] -= 1
                content = content[: len(content) // 2]
            time.sleep(server.delay_s)
            self.wfile.write(content)

    def _name(self):
        return self.path.partition("?")[0].lstrip("/")

    def _send_head(self, method, part=slice(None)):
        server, name = self.files_of, self._name()
        server.requests[method, name] += 1
        if server.n_busy[name] > 0:
            server.n_busy[name] -= 1
            self.send_error(503)
            return False
        if name not in server.files:
            self.send_error(404)
            return False
        content = server.files[name]
        self.send_response(200 if part.stop is None else 206)
        self.send_header("Content-Length", str(len(content[part])))
        if server.etags:
            self.send_header("ETag", f'"{hash(content):x}"')
        if server.times:
            changed_s = server.changed_s.get(name, OLD_S)
            is_text = isinstance(changed_s, str)
            changed = changed_s if is_text else email.utils.formatdate(changed_s, usegmt=True)
            self.send_header("Last-Modified", changed)
        self.end_headers()
        return True

    def log_message(self, *args):
        pass
