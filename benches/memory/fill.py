#!/usr/bin/env python3
"""Resident memory of edgeproxy while its store is full, whatever it is full of.

The store has a limit of 256 MiB and is asked for far more than that, in objects of one size, of
many, and of sizes that change; the process must stay below 320 MiB all the while. Then: what an
object costs beside its key, head and body. See benches/README.md.
"""

import argparse
import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shared  # noqa: E402

MIB = 1 << 20
LIMIT, GOAL = 256, 320
BOOKKEEPING_GOAL = 512

# What is asked for: a name in SIZES, or several with their weights.
SIZES = {"tiny": 1, "1k": 1 << 10, "8k": 8 << 10, "60k": 60_000, "300k": 300_000, "4m": 4 << 20}
MIXED = {"tiny": 40, "1k": 30, "8k": 20, "60k": 8, "300k": 2}
MIXES = {
    "tiny (1 byte)": [{"tiny": 1}],
    "1 KiB": [{"1k": 1}],
    "mixed, 1 byte to 300 KB": [MIXED],
    "large (4 MiB)": [{"4m": 1}],
    "one after another": [{"tiny": 1}, {"4m": 1}, {"1k": 1}, {"60k": 1}, MIXED, {"300k": 1}],
}

ORIGIN = """
daemon off;
worker_processes 1;
pid {folder}/origin.pid;
error_log {folder}/origin.error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  open_file_cache max=100;
  keepalive_requests 1000000000;
  default_type application/octet-stream;
  add_header Cache-Control "public, max-age=3600";
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {folder}/files;
  }}
}}
"""

CONFIG = """
process:
  threads: 1
  state_dir: "{folder}/state"
listeners:
  - name: plain
    address: "127.0.0.1:{plain}"
limits:
  requests_per_connection: 1000000000
upstreams:
  origin:
    addresses: ["127.0.0.1:{origin}"]
routes:
  - upstream: origin
cache:
  memory: {limit}MiB
admin:
  socket: "{folder}/admin.sock"
access_log:
  to: "off"
log:
  level: warn
"""

# Every request is for something new: the number behind the question mark is part of the key. The
# weights choose the size in turn, scattered and the same in every run.
SCRIPT = """
local paths = {{ {paths} }}
local n, at = {start}, 0
request = function()
  n = n + 1
  at = (at + {step}) % #paths
  return wrk.format("GET", "/" .. paths[at + 1] .. "?" .. string.format("%09d", n))
end
"""


def main():
    arguments = parse_arguments()
    shared.end_on_signal()
    shared.raise_descriptor_limit()
    results = {}
    for name, phases in MIXES.items():
        if arguments.only is None or arguments.only in name:
            with tempfile.TemporaryDirectory(prefix="edgeproxy-fill-") as folder:
                results[name] = measure(Path(folder), phases, arguments.times)
    machine = shared.machine()
    print(f"{machine['processor']}, Linux {machine['kernel']}, {machine['date']}, commit {machine['commit']}")
    print(f"a limit of {LIMIT} MiB, filled {arguments.times} times over\n")
    print("| objects | held | store, MiB | most resident, MiB | at the end, MiB | goal | each beside key, head and body |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, result in results.items():
        each = f"{result['bookkeeping']:,.0f}" if result["bookkeeping"] is not None else ""
        print(
            f"| {name} | {result['objects']:,.0f} | {result['bytes'] / MIB:.0f} | {result['most'] / MIB:.0f} "
            f"| {result['end'] / MIB:.0f} | {GOAL} | {each} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    missed = [name for name, result in results.items() if result["most"] > GOAL * MIB]
    missed += [
        f"bookkeeping of {name}"
        for name, result in results.items()
        if result["bookkeeping"] is not None and result["bookkeeping"] > BOOKKEEPING_GOAL
    ]
    if missed:
        sys.exit(f"over the goal: {', '.join(missed)}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3, help="how many times over the store is filled")
    parser.add_argument("--only", metavar="NAME", help="only the mixes with this in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    arguments = parser.parse_args()
    if arguments.times < 1:
        parser.error("the store is filled once at least")
    return arguments


def measure(folder, phases, times):
    """Fills the store of a process of its own, phase by phase."""
    folder.chmod(0o755)
    port, plain = shared.free_ports(2)
    files = folder / "files"
    files.mkdir(mode=0o755)
    for name, size in SIZES.items():
        (files / name).write_bytes(b"x" * size)
    (folder / "origin.conf").write_text(ORIGIN.format(folder=folder, port=port))
    (folder / "edge.yaml").write_text(CONFIG.format(folder=folder, plain=plain, origin=port, limit=LIMIT))
    nginx = [shared.tool("nginx"), "-p", str(folder), "-e", "origin.error.log", "-c", "origin.conf"]
    with (
        shared.Server("origin", nginx, folder, [port]),
        shared.Server("edgeproxy", [shared.edgeproxy(), "-c", "edge.yaml"], folder, [plain]) as server,
    ):
        # Connections and first uses once: they are no part of the store.
        head = head_bytes(plain, next(iter(phases[0])))
        before = settled(server)
        with Watch(server) as watch:
            first = 0
            for phase in phases:
                first = fill(folder, plain, phase, first, times)
                server.check_alive()
        told = metrics(folder / "admin.sock")
        objects, stored = told["edgeproxy_cache_objects"], told["edgeproxy_cache_bytes"]
        end = settled(server)
    bookkeeping = None
    if len(phases) == 1 and len(phases[0]) == 1:
        name = next(iter(phases[0]))
        if SIZES[name] <= 1 << 10:
            bookkeeping = (end - before) / objects - head - key_bytes(plain, name) - SIZES[name]
    return {
        "objects": objects,
        "bytes": stored,
        "before": before,
        "most": max(watch.most, end),
        "end": end,
        "bookkeeping": bookkeeping,
    }


def key_bytes(plain, name):
    """The text that tells one object from another: scheme, host, port, path, query."""
    return len(f"http://127.0.0.1:{plain}/{name}?000000000")


def head_bytes(plain, name):
    """The bytes of the stored head as the origin sent it, without what we say beside it."""
    connection = http.client.HTTPConnection("127.0.0.1", plain, timeout=20)
    connection.request("GET", f"/{name}?warm")
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        sys.exit(f"/{name}: {answer.status}")
    ours = {"age", "via", "x-request-id", "cache-status", "x-cache", "connection"}
    fields = [(k, v) for k, v in answer.getheaders() if k.lower() not in ours]
    connection.close()
    return len("HTTP/1.1 200 OK\r\n\r\n") + sum(len(f"{k}: {v}\r\n") for k, v in fields)


def fill(folder, plain, phase, first, times):
    """Asks for `times` as much as fits into the store; returns the number of the next object."""
    paths = [name for name, weight in phase.items() for _ in range(weight)]
    mean = sum(SIZES[name] for name in paths) / len(paths)
    wanted = times * LIMIT * MIB / (mean + 750)
    start = first
    while first - start < wanted:
        script = folder / "fill.lua"
        script.write_text(SCRIPT.format(
            paths=", ".join(f'"{name}"' for name in paths), start=first, step=37 if len(paths) > 1 else 1
        ))
        done = subprocess.run(
            [shared.tool("wrk"), "-t1", "-c16", "-d5s", "-s", str(script), f"http://127.0.0.1:{plain}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        found = re.search(r"(\d+) requests in", done.stdout)
        if done.returncode != 0 or "Non-2xx" in done.stdout or not found or int(found[1]) == 0:
            sys.exit(f"requests failed:\n{done.stdout}")
        # Those in flight at the end were asked for, but not counted.
        first += int(found[1]) + 100
    return first


class Watch:
    """Reads a server's resident memory ten times a second; `most` is the most it was."""

    def __init__(self, server):
        self.server = server
        self.most = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def look(self):
        while not self.over.wait(0.1):
            self.most = max(self.most, self.server.resident_bytes())


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def metrics(path):
    """The gauges and counters of the store."""
    connection = UnixConnection(path)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(r"^(edgeproxy_cache_\w+)\{tier=\"memory\",zone=\"default\"\} (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


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
