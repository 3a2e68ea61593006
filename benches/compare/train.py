#!/usr/bin/env python3
"""Puts edgeproxy under loads like those of browsers, for a build that takes notes of its work: scripts/pgo.

Not under those of the comparison, whose requests have hardly a field: what is measured is not what was rehearsed.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import compare  # noqa: E402
import shared  # noqa: E402

LOADS = ["/cached/1k", "/cached/100k", "/cached/1m", "/plain/1k", "/plain/100k"]

FIELDS = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://www.example.org/a/page",
    "Cookie: session=5b0e4f9a7c21d836; theme=dark",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: same-origin",
    "Priority: u=0, i",
]


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
            for path in LOADS:
                target = compare.url(server, protocol, path)
                requests, _ = compare.run_load(protocol, target, arguments.seconds, arguments, FIELDS)
                server.check_alive()
                print(f"{path} over {protocol}: {requests} requests", file=sys.stderr)


if __name__ == "__main__":
    main()
