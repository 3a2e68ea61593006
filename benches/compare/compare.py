#!/usr/bin/env python3
"""edgeproxy beside nginx, HAProxy, Varnish and Traffic Server: requests per second and processor time per request.

The proxy under test has core 0 for itself; the origin and the load generator share core 1. See
benches/README.md for the method and for how to read the table.
"""

import argparse
import contextlib
import json
import os
import re
import ssl
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import shared  # noqa: E402
import configs  # noqa: E402

PROXY_CORE, LOAD_CORE = 0, 1
SERVERS = ["nginx", "haproxy", "varnish", "trafficserver", "edgeproxy"]
PROTOCOLS = ["http/1.1", "h2 over TLS"]
WORKLOADS = {
    "cached hit, 1 KiB": "/cached/1k",
    "cached hit, 100 KiB": "/cached/100k",
    "cached hit, 1 MiB": "/cached/1m",
    "plain proxying, 1 KiB": "/plain/1k",
}


@dataclass
class Sample:
    """One run of the load generator."""

    requests: int
    seconds: float
    cpu: float

    @property
    def rate(self):
        return self.requests / self.seconds

    @property
    def cost(self):
        """Microseconds of processor time per request."""
        return self.cpu * 1e6 / self.requests

    @property
    def load(self):
        """How much of its core the proxy used, in percent."""
        return 100 * self.cpu / self.seconds


def main():
    arguments = parse_arguments()
    if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit("this benchmark needs the cores 0 and 1: one for the proxy, one for the load")
    shared.end_on_signal()
    shared.raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="edgeproxy-compare-") as folder:
        # nginx gives up root in its worker, which must reach its files all the same.
        os.chmod(folder, 0o755)
        with contextlib.ExitStack() as stack:
            servers = start_all(Path(folder), stack)
            for server in servers:
                verify(server, arguments)
            samples = measure(servers, arguments)
    report(samples, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each cell; the median counts")
    parser.add_argument("--connections", type=int, default=32, help="connections of HTTP/1.1")
    parser.add_argument("--only", metavar="TEXT", help="only the workloads with this in their name")
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.rounds = 1, 1
    arguments.workloads = [name for name in WORKLOADS if arguments.only is None or arguments.only in name]
    if not arguments.workloads:
        parser.error(f"the workloads are: {'; '.join(WORKLOADS)}")
    if min(arguments.seconds, arguments.rounds, arguments.connections) < 1:
        parser.error("all numbers are at least 1")
    return arguments


def start_all(folder, stack, names=SERVERS):
    """Starts the origin and these proxies in front of it."""
    chain, key, both = shared.certificate(folder)
    for path in (chain, key, both):
        path.chmod(0o644)
    ports = shared.free_ports(1 + 2 * len(SERVERS))
    origin_port, pairs = ports[0], list(zip(ports[1::2], ports[2::2]))

    nginx, haproxy = shared.tool("nginx"), shared.tool("haproxy")
    configs.origin(folder, origin_port)
    origin = [nginx, "-p", str(folder), "-e", "origin.error.log", "-c", "origin.conf"]
    stack.enter_context(shared.Server("origin", origin, folder, [origin_port], LOAD_CORE))

    ports = dict(zip(SERVERS, pairs))
    # Varnish speaks no TLS: its second port stays unused.
    ports["varnish"] = ports["varnish"][:1]
    texts = {
        "nginx.conf": configs.nginx(folder, ports["nginx"], origin_port, chain, key),
        "haproxy.cfg": configs.haproxy(folder, ports["haproxy"], origin_port, both),
        "default.vcl": configs.varnish(origin_port),
        "edge.yaml": configs.edgeproxy(folder, ports["edgeproxy"], origin_port, chain, key),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    runroot = configs.trafficserver(folder, ports["trafficserver"], origin_port, both)
    (folder / "varnish").mkdir()
    commands = {
        "nginx": lambda: [nginx, "-p", str(folder), "-e", "nginx.error.log", "-c", "nginx.conf"],
        "haproxy": lambda: [haproxy, "-db", "-f", "haproxy.cfg"],
        "varnish": lambda: [
            shared.tool("varnishd"), "-F", "-j", "none", "-n", f"{folder}/varnish", "-f", f"{folder}/default.vcl",
            "-a", f"127.0.0.1:{ports['varnish'][0]}", "-s", "malloc,256m", "-p", "thread_pools=1",
        ],
        "trafficserver": lambda: [shared.tool("traffic_server"), f"--run-root={runroot}"],
        "edgeproxy": lambda: [shared.edgeproxy(), "-c", "edge.yaml"],
    }
    return [
        stack.enter_context(shared.Server(name, commands[name](), folder, list(ports[name]), PROXY_CORE))
        for name in names
    ]


def speaks(server, protocol):
    return protocol == "http/1.1" or len(server.ports) > 1


def url(server, protocol, path):
    if protocol == "http/1.1":
        return f"http://127.0.0.1:{server.ports[0]}{path}"
    return f"https://127.0.0.1:{server.ports[1]}{path}"


def verify(server, arguments):
    """Is a hit a hit, and a miss a miss? The origin numbers its answers."""
    trusting = ssl._create_unverified_context()
    cells = [(protocol, workload) for protocol in PROTOCOLS for workload in arguments.workloads]
    for protocol, workload in cells:
        if speaks(server, protocol):
            path, made = WORKLOADS[workload], set()
            for _ in range(3):
                with urllib.request.urlopen(url(server, protocol, path), timeout=10, context=trusting) as answer:
                    if len(answer.read()) != configs.BODIES[path.rpartition("/")[2]]:
                        sys.exit(f"{server.name}: {workload} has a wrong body")
                    made.add(answer.headers["X-Made"])
            expected = 1 if workload.startswith("cached hit") else 3
            if len(made) != expected or None in made:
                sys.exit(f"{server.name}: {workload} over {protocol}: 3 requests, {len(made)} answers made")


def measure(servers, arguments):
    """All cells, round by round, so that what disturbs the machine disturbs everybody."""
    cells = [(protocol, workload) for protocol in PROTOCOLS for workload in arguments.workloads]
    samples = {}
    for turn in range(arguments.rounds):
        for protocol, workload in cells:
            for server in [server for server in servers if speaks(server, protocol)]:
                show(f"round {turn + 1}/{arguments.rounds}: {workload} over {protocol}, {server.name}")
                target = url(server, protocol, WORKLOADS[workload])
                # Connections, pools and branch predictors first.
                run_load(protocol, target, 1, arguments)
                before = server.cpu_seconds()
                requests, seconds = run_load(protocol, target, arguments.seconds, arguments)
                cpu = server.cpu_seconds() - before
                server.check_alive()
                key = (protocol, workload, server.name)
                samples.setdefault(key, []).append(Sample(requests, seconds, cpu))
    show("")
    return samples


def run_load(protocol, target, seconds, arguments, fields=()):
    """Runs the load generator, whose requests have these fields; requests done, and in how many seconds."""
    pin = [shared.tool("taskset"), "-c", str(LOAD_CORE)]
    if protocol == "http/1.1":
        command = [shared.tool("wrk"), "-t1", f"-c{arguments.connections}", f"-d{seconds}s", target]
    else:
        command = [shared.tool("h2load"), "-t1", "-c8", "-m16", f"-D{seconds}", target]
    command[1:1] = [word for field in fields for word in ("-H", field)]
    done = subprocess.run(
        pin + command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + 30,
    )
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout}")
    return (read_wrk if protocol == "http/1.1" else read_h2load)(done.stdout)


def read_wrk(text):
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"requests failed:\n{text}")
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)\b", text)
    if not found or int(found[1]) == 0:
        sys.exit(f"wrk says nothing of requests:\n{text}")
    return int(found[1]), float(found[2]) * {"ms": 0.001, "s": 1, "m": 60}[found[3]]


def read_h2load(text):
    counts = re.search(r"requests: .*?, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    if not counts or not rate or int(counts[2]) == 0 or "Application protocol: h2" not in text:
        sys.exit(f"h2load says nothing of HTTP/2 requests:\n{text}")
    # What is in flight when the time is over counts as failed; more than that is a failure.
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    if not statuses or any(int(statuses[n]) for n in (2, 3, 4)) or int(counts[3]) > 8 * 16:
        sys.exit(f"requests failed:\n{text}")
    requests = int(counts[2])
    return requests, requests / float(rate[1])


def show(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def report(samples, arguments):
    """The table, as Markdown, and every sample as JSON."""
    machine = shared.machine()
    versions = {
        "nginx": shared.first_line([shared.tool("nginx"), "-v"]),
        "haproxy": shared.first_line([shared.tool("haproxy"), "-v"]),
        "varnish": shared.first_line([shared.tool("varnishd"), "-V"]),
        "trafficserver": shared.first_line([shared.tool("traffic_server"), "--version"]),
        "edgeproxy": shared.first_line([shared.edgeproxy(), "--version"]),
    }
    print(f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['date']}")
    print("; ".join(text.partition(" - ")[0] for text in versions.values()))
    print(f"commit {machine['commit']}; median of {arguments.rounds} rounds of {arguments.seconds} s\n")
    print("| workload | protocol | proxy | requests/s | CPU µs/request | core used | edgeproxy: rate | CPU |")
    print("|---|---|---|---:|---:|---:|---:|---:|")
    rows = []
    for protocol in PROTOCOLS:
        for workload in arguments.workloads:
            of = {name: samples[protocol, workload, name] for name in SERVERS if (protocol, workload, name) in samples}
            cost = {name: median(of[name], "cost") for name in of}
            rate = {name: median(of[name], "rate") for name in of}
            for name in of:
                load = median(of[name], "load")
                # What edgeproxy does and needs, as a multiple of what this proxy does and needs.
                rates, costs = rate["edgeproxy"] / rate[name], cost["edgeproxy"] / cost[name]
                print(
                    f"| {workload} | {protocol} | {name} | {rate[name]:,.0f} | {cost[name]:.1f} "
                    f"| {load:.0f} % | {rates:.2f} × | {costs:.2f} × |"
                )
                rows.append({
                    "workload": workload,
                    "protocol": protocol,
                    "proxy": name,
                    "requests_per_second": round(rate[name], 1),
                    "cpu_us_per_request": round(cost[name], 2),
                    "core_percent": round(load, 1),
                    "edgeproxy_rate_relative": round(rates, 3),
                    "edgeproxy_cpu_relative": round(costs, 3),
                    "samples": [vars(sample) for sample in of[name]],
                })
    if arguments.json:
        result = {"machine": machine, "versions": versions, "seconds": arguments.seconds, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def median(samples, what):
    return statistics.median(getattr(sample, what) for sample in samples)


if __name__ == "__main__":
    main()
