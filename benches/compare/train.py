#!/usr/bin/env python3
"""Puts edgeproxy under the loads of the comparison, for a build that takes notes of its work: scripts/pgo."""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import compare  # noqa: E402
import shared  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2, help="length of each load")
    arguments = parser.parse_args()
    if arguments.seconds < 1:
        parser.error("all numbers are at least 1")
    arguments.workloads, arguments.connections = list(compare.WORKLOADS), 32
    shared.end_on_signal()
    with tempfile.TemporaryDirectory(prefix="edgeproxy-train-") as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        # nginx gives up root, and must reach its files all the same.
        os.chmod(folder, 0o755)
        [server] = compare.start_all(folder, stack, ["edgeproxy"])
        compare.verify(server, arguments)
        for protocol in compare.PROTOCOLS:
            for workload, path in compare.WORKLOADS.items():
                target = compare.url(server, protocol, path)
                requests, _ = compare.run_load(protocol, target, arguments.seconds, arguments)
                server.check_alive()
                print(f"{workload} over {protocol}: {requests} requests", file=sys.stderr)


if __name__ == "__main__":
    main()
