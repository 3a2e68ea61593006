#!/usr/bin/env python3
"""TLS handshakes of edgeproxy beside those of nginx and HAProxy: how many, and processor time for each.

The proxy under test has core 0 for itself; OpenSSL's client has core 1. See benches/README.md.
"""

import argparse
import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import compare  # noqa: E402
import shared  # noqa: E402

SERVERS = ["nginx", "haproxy", "edgeproxy"]
VERSIONS = {"TLS 1.3": "-tls1_3", "TLS 1.2": "-tls1_2"}
# What the client does, and the mark that it prints for each connection that was so.
KINDS = {"full": ("-new", "*"), "resumed": ("-reuse", "r")}
# Each one waits for the proxy most of the time.
CLIENTS = 8
PATH = "/nothing"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=4, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each cell; the median counts")
    arguments = parser.parse_args()
    if min(arguments.seconds, arguments.rounds) < 1:
        parser.error("all numbers are at least 1")
    if not {compare.PROXY_CORE, compare.LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit("this benchmark needs the cores 0 and 1: one for the proxy, one for the load")
    shared.end_on_signal()
    shared.raise_descriptor_limit()
    samples = {}
    with tempfile.TemporaryDirectory(prefix="edgeproxy-handshakes-") as folder:
        # nginx gives up root in its worker, which must reach its files all the same.
        os.chmod(folder, 0o755)
        with contextlib.ExitStack() as stack:
            servers = compare.start_all(Path(folder), stack, SERVERS)
            for server in servers:
                verify(server)
            for turn in range(arguments.rounds):
                for version in VERSIONS:
                    for kind in KINDS:
                        for server in servers:
                            compare.show(f"round {turn + 1}/{arguments.rounds}: {version}, {kind}, {server.name}")
                            run(server, version, kind, 1)
                            sample = run(server, version, kind, arguments.seconds)
                            samples.setdefault((version, kind, server.name), []).append(sample)
    compare.show("")
    report(samples, arguments)


def verify(server):
    """Does it answer what the clients will ask?"""
    trusting = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", server.ports[1]), timeout=10) as plain:
        with trusting.wrap_socket(plain) as tls:
            tls.sendall(f"GET {PATH} HTTP/1.0\r\n\r\n".encode())
            status = tls.recv(4096).split(b"\r\n")[0]
    if b" 204" not in status:
        sys.exit(f"{server.name} answers {status!r}")


def run(server, version, kind, seconds):
    """Connects again and again, each time for one small answer."""
    flag, mark = KINDS[kind]
    command = [shared.tool("taskset"), "-c", str(compare.LOAD_CORE), shared.tool("openssl"), "s_time"]
    command += ["-connect", f"127.0.0.1:{server.ports[1]}", "-www", PATH, "-time", str(seconds), flag, VERSIONS[version]]
    began, before = time.monotonic(), server.cpu_seconds()
    clients = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(CLIENTS)
    ]
    said = [client.communicate(timeout=seconds + 30)[0] for client in clients]
    cpu, took = server.cpu_seconds() - before, time.monotonic() - began
    server.check_alive()
    return compare.Sample(sum(connections(text, mark, server.name) for text in said), took, cpu)


def connections(text, mark, name):
    """How many connections a client made; all of them as they were meant to be."""
    found = re.findall(r"^(\d+) connections in \d+ real seconds, (\d+) bytes", text, re.MULTILINE)
    if not found or int(found[-1][0]) == 0 or int(found[-1][1]) == 0:
        sys.exit(f"{name}: no connections:\n{text[-2000:]}")
    marks = "".join(re.findall(r"^[*r]+$", text, re.MULTILINE))
    # The first one has nothing to resume.
    if marks.count(mark) < len(marks) - 1 or not marks:
        sys.exit(f"{name}: {len(marks) - marks.count(mark)} of {len(marks)} connections are not '{mark}'")
    return int(found[-1][0])


def report(samples, arguments):
    """The table, as Markdown."""
    machine = shared.machine()
    print(f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}")
    print(f"commit {machine['commit']}; median of {arguments.rounds} rounds of {arguments.seconds} s\n")
    print("| version | handshake | proxy | connections/s | CPU µs/connection | core used | edgeproxy: CPU |")
    print("|---|---|---|---:|---:|---:|---:|")
    for version in VERSIONS:
        for kind in KINDS:
            of = {name: samples[version, kind, name] for name in SERVERS}
            cost = {name: compare.median(of[name], "cost") for name in of}
            for name in of:
                print(
                    f"| {version} | {kind} | {name} | {compare.median(of[name], 'rate'):,.0f} | {cost[name]:.1f} "
                    f"| {compare.median(of[name], 'load'):.0f} % | {cost['edgeproxy'] / cost[name]:.2f} × |"
                )


if __name__ == "__main__":
    main()
