#!/usr/bin/env python3
"""What a request costs in instructions, beside nginx and HAProxy: callgrind counts them, so noise does not matter.

Only what the program itself does is counted, not the kernel's part. See benches/README.md.
"""

import argparse
import contextlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs  # noqa: E402
import shared  # noqa: E402

SERVERS = ["nginx", "haproxy", "edgeproxy"]
WORKLOADS = {"cached hit, 1 KiB": "/cached/1k", "plain proxying, 1 KiB": "/plain/1k"}
CONNECTIONS = 4
WARM_UP = 300
# The first level of a current server processor, and a second level that all fits into.
CACHES = ["--I1=32768,8,64", "--D1=49152,12,64", "--LL=2097152,16,64"]
COUNTS = {"instructions": "I   refs", "missed code": "I1  misses", "missed data": "D1  misses"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000, help="how many are counted")
    parser.add_argument("--only", default="", help="workloads with this in their name")
    arguments = parser.parse_args()
    if arguments.requests < 1:
        parser.error("all numbers are at least 1")
    shared.end_on_signal()
    rows = []
    for workload, path in WORKLOADS.items():
        if arguments.only in workload:
            rows += [(workload, name, count(name, path, arguments.requests)) for name in SERVERS]
    print(f"\n| workload | proxy | {' | '.join(COUNTS)} |\n|---|---|{'---:|' * len(COUNTS)}")
    for workload, name, found in rows:
        print(f"| {workload} | {name} | {' | '.join(f'{number:,.0f}' for number in found)} |")


def count(name, path, requests):
    """What one request costs this server: of so many, after as many as make it warm."""
    with tempfile.TemporaryDirectory(prefix="edgeproxy-instructions-") as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        # nginx gives up root, and must reach its files all the same.
        os.chmod(folder, 0o755)
        chain, key, both = shared.certificate(folder)
        for file in (chain, key, both):
            file.chmod(0o644)
        origin, plain, tls = shared.free_ports(3)
        configs.origin(folder, origin)
        nginx = [shared.tool("nginx"), "-p", str(folder), "-e", "error.log", "-c"]
        stack.enter_context(shared.Server("origin", [*nginx, "origin.conf"], folder, [origin]))
        counted = folder / "callgrind.out"
        valgrind = [shared.tool("valgrind"), "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes", *CACHES]
        valgrind.append(f"--callgrind-out-file={counted}")
        server = shared.Server(name, valgrind + command(name, folder, (plain, tls), origin, (chain, key, both), nginx), folder, [plain])
        with server:
            ask(plain, path, WARM_UP)
            switch(server, "on")
            ask(plain, path, requests)
            switch(server, "off")
            # It has to come to its own end to say what it counted.
            server.process.terminate()
            server.process.wait(120)
        return [total(server.log.read_text(errors="replace"), mark) / requests for mark in COUNTS.values()]


def command(name, folder, ports, origin, certificate, nginx):
    """Starts the server in the foreground, in one process."""
    chain, key, both = certificate
    if name == "nginx":
        text = configs.nginx(folder, ports, origin, chain, key)
        (folder / "nginx.conf").write_text(f"master_process off;\n{text}")
        return [*nginx, "nginx.conf"]
    if name == "haproxy":
        (folder / "haproxy.cfg").write_text(configs.haproxy(folder, ports, origin, both))
        return [shared.tool("haproxy"), "-db", "-f", "haproxy.cfg"]
    (folder / "edge.yaml").write_text(configs.edgeproxy(folder, ports, origin, chain, key))
    return [shared.edgeproxy(), "-c", "edge.yaml"]


def ask(port, path, requests):
    """Asks by turns over a few connections that stay open."""
    with contextlib.ExitStack() as stack:
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(CONNECTIONS)]
        for connection in connections:
            stack.callback(connection.close)
        for turn in range(requests):
            connection = connections[turn % CONNECTIONS]
            connection.putrequest("GET", path, skip_accept_encoding=True)
            connection.endheaders()
            answer = connection.getresponse()
            if answer.status != 200 or len(answer.read()) != 1024:
                sys.exit(f"{path} is answered {answer.status}")


def switch(server, way):
    """Begins or ends the counting."""
    control = [shared.tool("callgrind_control"), "-i", way, str(server.process.pid)]
    subprocess.run(control, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def total(log, mark):
    """A number of callgrind's summary."""
    found = re.search(rf"== {re.escape(mark)}:\s+([\d,]+)", log)
    if found is None:
        sys.exit(f"callgrind does not say how many {mark}:\n{log[-2000:]}")
    return int(found.group(1).replace(",", ""))


if __name__ == "__main__":
    main()
