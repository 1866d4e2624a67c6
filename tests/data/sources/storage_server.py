"""As much of Google Cloud Storage's interface as reads objects."""

import contextlib
import http.server
import pathlib
import threading
import urllib.parse


@contextlib.contextmanager
def storage_server(folder):
    """Serves the files of a folder as the objects of any bucket, and yields the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            name = urllib.parse.unquote(self.path.split("?")[0]).rpartition("/o/")[2]
            file = pathlib.Path(folder) / name
            if not file.exists():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = file.read_bytes()
            size = len(content)
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            self.wfile.write(content[start:stop])

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            """A reader that has what it wants hangs up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
