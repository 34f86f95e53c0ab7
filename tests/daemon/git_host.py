"""A host of repositories over HTTP, as git itself serves them, that wants a token."""

import base64
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Host(BaseHTTPRequestHandler):
    """`git http-backend` behind a password."""

    folder: Path
    token: str
    users: list[str]

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._serve(body)

    def _serve(self, body: bytes) -> None:
        user, _, given = base64.b64decode(self.headers.get("authorization", "")[6:]).decode().partition(":")
        if given != self.token:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.users.append(user)
        path, _, query = self.path.partition("?")
        around = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": user,
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
        }
        out = subprocess.run(["git", "http-backend"], input=body, env=around, capture_output=True).stdout
        head, _, rest = out.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((value for name, value in lines if name == "Status"), "200 OK")
        self.send_response(int(status.split()[0]))
        for name, value in lines:
            if name != "Status":
                self.send_header(name, value)
        self.send_header("content-length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def hosting(folder: Path, token: str) -> Iterator[tuple[str, list[str]]]:
    """The address of the host of every repository in `folder`, and who has come in."""
    users: list[str] = []
    here = type("Here", (Host,), {"folder": folder, "token": token, "users": users})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), here)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", users
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
