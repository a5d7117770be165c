"""A small web app: every answer names the pod that gave it. Ends at once when asked to (SIGTERM)."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

PORT = int(os.environ.get("PORT", "8080"))


class App(BaseHTTPRequestHandler):
    """Answers every GET with a line of text."""

    def do_GET(self) -> None:
        body = f"hello from {os.environ.get('HOSTNAME', 'my-app')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingMixIn, HTTPServer):
    """A thread a request."""

    daemon_threads = True


def stop(_number: int, _frame: object) -> None:
    """What SIGTERM does: process 1 of a container has no default for it."""
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    print(f"my-app listens on port {PORT}", flush=True)
    Server(("", PORT), App).serve_forever()
