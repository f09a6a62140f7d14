"""Serves the current folder to a browser that prints the page once it is loaded: its loading ends only when all pictures are
classified. Prints the port.

The page gets a picture that is sent when its script says that it is ready, so that nothing depends on how fast it is.
"""

import http.server
import threading

PATIENCE = 240  # seconds
READY = threading.Event()
INJECTED = b"""<img src="wait" alt="" hidden><script>
const ready = () => document.getElementById("answer").dataset.ready && fetch("ready");
new MutationObserver(ready).observe(document.getElementById("answer"), { attributes: true });
ready();
</script></html>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        name = self.path.split("?")[0]
        if name == "/index.html":
            page = open("index.html", "rb").read().replace(b"</html>", INJECTED)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)
        elif name in ("/wait", "/ready"):
            if name == "/ready":
                READY.set()
            READY.wait(PATIENCE)
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(f"port {server.server_port}", flush=True)
    server.serve_forever()
