"""A server of weight files on loopback, in place of the host from which Keras downloads."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WeightsServer(ThreadingHTTPServer):
    """Serves the bytes in `files` by name, or behaves as `fault` names; `asked` lists requests.

    The faults are a status code, ``"short"`` (half of the bytes that were announced),
    ``"unannounced"`` (half of them, with no length), ``"closed"`` (no answer), ``"silent"`` and
    ``"slow"`` (the second half of the bytes only when `may_finish` is set).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.asked, self.fault = {}, [], None
        self.is_over, self.may_finish = threading.Event(), threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        name = self.path.rpartition("/")[2]
        server.asked.append(name)
        if server.fault == "silent":
            server.is_over.wait(60)
        elif server.fault != "closed":
            code = server.fault if isinstance(server.fault, int) else 200
            self._answer(code if name in server.files else 404, server.files.get(name, b""))

    def _answer(self, code, content):
        if code != 200:
            self.send_error(code)
            return
        self.send_response(200)
        if self.server.fault != "unannounced":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if self.server.fault == "slow":
            self.server.may_finish.wait(60)
        if self.server.fault not in ("short", "unannounced"):
            self.wfile.write(content[half:])

    def log_message(self, *_):
        """Print nothing."""


@contextmanager
def weights_server():
    """Run a server inside the context."""
    server = WeightsServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()
