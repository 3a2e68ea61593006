#!/usr/bin/env python3
"""Resident memory of edgeproxy per idle keep-alive connection, plain and TLS.

Each connection makes one request, reads the answer and then waits. What is measured is the growth
of the process's resident memory, divided by the number of connections. See benches/README.md.
"""

import argparse
import json
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shared  # noqa: E402

KIB = 1024
GOALS = {"plain": 8 * KIB, "tls": 24 * KIB}
# First uses cost once: thread-local caches, buffers, pools. They are no part of a connection.
WARM_UP = 64

CONFIG = """
process:
  state_dir: "{folder}/state"
listeners:
  - name: plain
    address: "127.0.0.1:{plain}"
  - name: tls
    address: "127.0.0.1:{tls}"
    tls:
      certificates:
        - hosts: [localhost]
          certificate: "{chain}"
          key: "{key}"
limits:
  connections: 100000
  connections_per_client: 100000
  idle_timeout: 10m
upstreams:
  demo:
    addresses: [demo]
routes:
  - upstream: demo
admin:
  socket: "{folder}/admin.sock"
access_log:
  to: "off"
log:
  level: warn
"""

REQUEST = b"GET /static/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n"


def main():
    arguments = parse_arguments()
    shared.end_on_signal()
    shared.raise_descriptor_limit()
    results = {}
    with tempfile.TemporaryDirectory(prefix="edgeproxy-memory-") as folder:
        chain, key, _ = shared.certificate(folder)
        for kind in GOALS:
            # A process of its own for each: what the first one freed would serve the second one.
            results[kind] = measure(kind, folder, chain, key, arguments.connections)
    machine = shared.machine()
    print(f"{machine['processor']}, Linux {machine['kernel']}, {machine['date']}, commit {machine['commit']}")
    print(f"{arguments.connections} idle connections after one request each\n")
    print("| connections | bytes each | goal |")
    print("|---|---:|---:|")
    for kind, each in results.items():
        print(f"| {kind} | {each:,.0f} ({each / KIB:.1f} KiB) | {GOALS[kind] // KIB} KiB |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "bytes_each": results}, indent=2) + "\n")
    missed = [kind for kind, each in results.items() if each > GOALS[kind]]
    if missed:
        sys.exit(f"over the goal: {', '.join(missed)}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    arguments = parser.parse_args()
    if arguments.connections < 100:
        parser.error("with fewer than 100 connections the noise is larger than the signal")
    return arguments


def measure(kind, folder, chain, key, count):
    """Bytes per connection."""
    plain, tls = shared.free_ports(2)
    text = CONFIG.format(folder=folder, plain=plain, tls=tls, chain=chain, key=key)
    config = Path(folder) / f"{kind}.yaml"
    config.write_text(text)
    command = [shared.edgeproxy(), "-c", str(config)]
    with shared.Server(kind, command, folder, [plain, tls]) as server:
        open_one = opener(kind, plain, tls, chain)
        for connection in [open_one() for _ in range(WARM_UP)]:
            connection.close()
        before = settled(server)
        connections = [open_one() for _ in range(count)]
        after = settled(server)
        server.check_alive()
        still_open(connections)
        for connection in connections:
            connection.close()
    return (after - before) / count


def opener(kind, plain, tls, chain):
    """How to open one connection and have it do its one request."""
    context = ssl.create_default_context(cafile=chain)

    def open_one():
        port = plain if kind == "plain" else tls
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        if kind == "tls":
            connection = context.wrap_socket(connection, server_hostname="localhost")
        connection.sendall(REQUEST)
        read_answer(connection)
        return connection

    return open_one


def read_answer(connection):
    """Reads one answer to its last byte; everything else than 200 ends the benchmark."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"not the expected answer:\n{head.decode(errors='replace')}")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    while len(body) < length:
        body += received(connection)


def received(connection):
    part = connection.recv(65536)
    if not part:
        sys.exit("edgeproxy closed a connection that should be kept open")
    return part


def still_open(connections):
    """Were the connections idle and open, or did edgeproxy save memory by closing them?"""
    for connection in connections:
        connection.setblocking(False)
        try:
            if connection.recv(1) == b"":
                sys.exit("edgeproxy closed an idle connection during the measurement")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass


def settled(server):
    """Resident memory, once it has stood still for half a second."""
    last = -1
    for _ in range(40):
        time.sleep(0.5)
        now = server.resident_bytes()
        if now == last:
            return now
        last = now
    return last


if __name__ == "__main__":
    main()
