"""What the benchmarks share: starting servers, and reading what they cost from /proc.

Only the Python standard library; Linux only.
"""

import contextlib
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
# Debian keeps servers where only root's PATH looks.
SEARCH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def tool(name):
    """Where a program is; ends the benchmark when it is missing."""
    path = shutil.which(name, path=SEARCH)
    if path is None:
        sys.exit(f"{name} is missing: scripts/setup bench installs it")
    return path


def edgeproxy():
    """The release build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / "release" / "edgeproxy"
    if not path.exists():
        sys.exit(f"{path} is missing: cargo build --release makes it")
    return str(path)


def free_ports(count):
    """Ports of loopback that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]


def raise_descriptor_limit():
    """As many open files as the system lets us have; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server:
    """A server process with its children, pinned to a core, ended with the block it is used in."""

    def __init__(self, name, command, folder, ports, core=None):
        self.name = name
        self.log = Path(folder) / f"{name}.log"
        self.ports = ports
        pinned = [tool("taskset"), "-c", str(core)] if core is not None else []
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                pinned + command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_ready(self):
        deadline = time.monotonic() + 20
        for port in self.ports:
            while True:
                self.check_alive()
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        sys.exit(f"{self.name} does not listen on {port}:\n{self.output()}")
                    time.sleep(0.05)

    def check_alive(self):
        if self.process.poll() is not None:
            sys.exit(f"{self.name} ended with {self.process.returncode}:\n{self.output()}")

    def output(self):
        return self.log.read_text(errors="replace")[-4000:]

    def stop(self):
        """Ends the whole group, gently first."""
        for sign, patience in [(signal.SIGINT, 3), (signal.SIGKILL, 5)]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        # The leader may be gone before its children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def tree(self):
        """The ids of the process and of all below it."""
        children = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    children.setdefault(parent_of(entry), []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def cpu_seconds(self):
        """Processor time so far, user and system, of the whole tree."""
        return sum(cpu_seconds(pid) for pid in self.tree())

    def resident_bytes(self):
        """Resident memory of the whole tree."""
        return sum(resident_bytes(pid) for pid in self.tree())


def after_name(stat):
    """The fields of /proc/PID/stat behind the name, which may have anything in it."""
    return stat.rpartition(")")[2].split()


def parent_of(folder):
    return int(after_name((folder / "stat").read_text())[1])


def cpu_seconds(pid):
    fields = after_name(Path(f"/proc/{pid}/stat").read_text())
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def certificate(folder):
    """A self-signed certificate for localhost on P-256: paths of the chain, the key, and of both."""
    chain, key, both = (Path(folder) / name for name in ("cert.pem", "key.pem", "both.pem"))
    subprocess.run(
        [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", str(key), "-out", str(chain)],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    both.write_text(chain.read_text() + key.read_text())
    return chain, key, both


def machine():
    """What the numbers were measured on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release().partition("-")[0],
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
    }


def first_line(command):
    """The first line that a command prints, on either stream; empty when it cannot be run."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    except OSError:
        return ""
    return next(iter(done.stdout.splitlines()), "").strip()


def end_on_signal():
    """Turns SIGTERM and SIGHUP into an exception, so that every block is left in order."""

    def leave(number, _):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
