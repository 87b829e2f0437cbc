"""What code in a tool or model server could try: it runs inside that pod (`python3 -c`) and serves what came of it.

$TARGETS is a JSON object of name to [host, port]. `itself` is tried too and must succeed, else nothing here means
anything.
"""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

TIMEOUT_SECONDS = 4
TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount"


def connects(address):
    try:
        socket.create_connection(tuple(address), timeout=TIMEOUT_SECONDS).close()
    except OSError as error:
        return f"no: {error}"
    return "yes"


def asks_dns(address):
    """Send a query for the root over UDP; any answer is a way out."""
    query = bytes.fromhex("0001010000010000000000000000020001")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(TIMEOUT_SECONDS)
        try:
            udp.sendto(query, tuple(address))
            udp.recv(512)
        except OSError as error:
            return f"no: {error}"
    return "yes"


def resolves(name):
    try:
        socket.getaddrinfo(name, 443)
    except OSError as error:
        return f"no: {error}"
    return "yes"


class Answer(BaseHTTPRequestHandler):
    body = b"{}"

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)


inner = socket.create_server(("127.0.0.1", 9999))
targets = json.loads(os.environ["TARGETS"])
with ThreadPoolExecutor(16) as pool:
    tried = {name: pool.submit(connects, address) for name, address in targets.items() if name != "dns"}
    tried["itself"] = pool.submit(connects, ["127.0.0.1", 9999])
    tried["dns"] = pool.submit(asks_dns, targets["dns"])
    tried["name"] = pool.submit(resolves, "kubernetes.default.svc.cluster.local")
    found = {name: future.result() for name, future in tried.items()}
mounts = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
mounted = [path for path in mounts if "secret" in path]
report = {"tried": found, "token": os.path.exists(TOKENS), "mounted": mounted}
Answer.body = json.dumps(report).encode()
HTTPServer(("", 8080), Answer).serve_forever()
