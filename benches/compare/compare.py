#!/usr/bin/env python3
"""What tidegate costs beside HAProxy, nginx and bare Pingora: CPU time per request, and memory per idle connection.

    benches/compare/compare.py                              everything that is installed, about ten minutes
    benches/compare/compare.py --peers bare-pingora,tidegate --workloads get1k,new1k --rounds 7
    benches/compare/compare.py --peers tidegate --former OTHER-BUILD --workloads get1k,new1k --rounds 9

Each proxy has one thread on one core; the load and the backends have another core, so requests/s say little. The figure to
read is CPU time (user and system, all processes of the proxy) per completed request, and of this the ratio to another proxy within
the same round: rounds are interleaved, so what disturbs the machine disturbs all. Needs Linux, two cores, wrk and cargo.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
CRATE = HERE / "bare-pingora"
BUILT = PROJECT / "target" / "compare"
CRATE_BINARIES = BUILT / "release"
BACKENDS = ["s1", "s2", "s3", "s4"]
BASELINES = ["bare-pingora", "haproxy", "former"]
# Enough that a ledger or a pin cache cannot answer from one hot line, few enough that each is seen often.
VISITORS = 64
CONNECTIONS = 64
IDLE_CONNECTIONS = 5000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Workload:
    note: str
    path: str
    method: str = "GET"
    body_bytes: int = 0
    known_visitors: bool = True
    goal: float | None = None  # highest ratio of tidegate to bare Pingora


WORKLOADS = {
    "get1k": Workload("GET 1 KiB; known visitors send session and pin back", "/1k", goal=1.15),
    "new1k": Workload("GET 1 KiB; no cookie: a pin is made for every answer", "/1k", known_visitors=False, goal=1.15),
    "born1k": Workload("GET 1 KiB; no cookie, and the backend opens a session with every answer", "/born", known_visitors=False),
    "get64k": Workload("GET 64 KiB; known visitors", "/64k"),
    "post16k": Workload("POST 16 KiB, answer 1 KiB; known visitors", "/1k", method="POST", body_bytes=16 * 1024),
}
IDLE_GOAL_KIB = 8.0


class Unusable(Exception):
    """A peer or the bench itself cannot run; the text says what to do."""


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def launch(command, core, nice, **options):
    """A program tied to one core, leading a session of its own. The kernel weighs sessions first (autogroup), so these are niced too."""
    def place():
        os.sched_setaffinity(0, {core})
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            with contextlib.suppress(OSError):
                pathlib.Path("/proc/self/autogroup").write_text(str(nice))

    return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=place, **options)


class Process:
    """A started program with all its children. They are found by the session it leads."""

    def __init__(self, name, command, core, bench):
        self.name, self.log = name, bench.run / f"{name}.log"
        with open(self.log, "wb") as log:
            self.child = launch(command, core, bench.nice, stdout=log, stderr=log, cwd=bench.run)

    def stats(self):
        """(pid, fields of /proc/PID/stat from the state on) of each process."""
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    fields = pathlib.Path(entry.path, "stat").read_text().rpartition(") ")[2].split()
                    if int(fields[3]) == self.child.pid:
                        yield int(entry.name), fields

    def cpu_seconds(self):
        """(user, system), children that have ended included."""
        times = [[int(tick) for tick in fields[11:15]] for _, fields in self.stats()]
        return (sum(t[0] + t[2] for t in times) / TICKS_PER_SECOND, sum(t[1] + t[3] for t in times) / TICKS_PER_SECOND)

    def pss_kib(self):
        """Memory, shared pages divided among those who share them."""
        rollups = [pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text() for pid, _ in self.stats()]
        return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:"))

    def wait_for(self, address):
        deadline = time.monotonic() + 15
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(address) == 0:
                    return
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise Unusable(f"it does not listen on {address[1]}; the end of its log:\n{self.log_end()}")
            time.sleep(0.05)

    def log_end(self):
        return "\n".join("    " + line for line in self.log.read_text(errors="replace").splitlines()[-12:])

    def stop(self):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout=3)


class Peer:
    """One of the compared proxies: how to find, configure and start it, and the cookies of its visitors."""

    def __init__(self, name, program, remedy, arguments, conf=None):
        self.name, self.program, self.remedy, self.arguments, self.conf = name, program, remedy, arguments, conf
        self.process, self.address, self.visitors = None, None, []

    def start(self, bench):
        found = shutil.which(self.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if not found:
            raise Unusable(f"no program {self.program}; {self.remedy}")
        self.address, admin = free_address(), free_address()
        places = {"run": bench.run, "name": self.name, "listen": "%s:%d" % self.address, "admin": "%s:%d" % admin}
        places |= {name: "%s:%d" % address for name, address in zip(BACKENDS, bench.backends)}
        if self.conf:
            places["conf"] = bench.run / f"{self.name}-{self.conf}"
            places["conf"].write_text((HERE / "conf" / self.conf).read_text() % places)
        self.process = Process(self.name, [found] + [word % places for word in self.arguments], bench.proxy_core, bench)
        bench.processes.append(self.process)
        self.process.wait_for(self.address)
        self.prove()

    def prove(self):
        """Meets the visitors of this peer and makes sure that each returns to the backend of the first visit, and that all backends have some."""
        deadline = time.monotonic() + 10
        while visit(self.address)[0] != 200:  # probes may have to pass first
            if time.monotonic() > deadline:
                raise Unusable(f"it answers {visit(self.address)[0]}; the end of its log:\n{self.process.log_end()}")
            time.sleep(0.1)
        firsts = [visit(self.address, path="/born") for _ in range(VISITORS)]
        missing = set(BACKENDS) - {backend for _, backend, _ in firsts}
        if missing:
            raise Unusable(f"{VISITORS} new visitors never reached {', '.join(sorted(missing))}")
        for _, backend, cookies in firsts:
            for _ in range(3):
                status, again, _ = visit(self.address, cookies)
                if (status, again) != (200, backend):
                    raise Unusable(f"it is not sticky: {cookies} opened on {backend}, then {status} from {again}")
        self.visitors = [cookies for _, _, cookies in firsts]


def peers(tidegate, former=None):
    backends = [f"%({name})s" for name in BACKENDS]
    return {peer.name: peer for peer in (
        Peer("haproxy", "haproxy", "apt-get install haproxy", ["-db", "-f", "%(conf)s"], "haproxy.cfg"),
        Peer("nginx", "nginx", "apt-get install nginx-light", ["-c", "%(conf)s"], "nginx.conf"),
        Peer("bare-pingora", str(CRATE_BINARIES / "bare-pingora"), "it is built by this script", ["%(listen)s"] + backends),
        Peer("tidegate", tidegate, "cargo build --release", ["run", "-c", "%(conf)s"], "tidegate.yaml"),
        *([Peer("former", former, "build it from the commit before", ["run", "-c", "%(conf)s"], "tidegate.yaml")] if former else []),
    )}


@dataclasses.dataclass
class Bench:
    """What all measurements of one run share."""

    run: pathlib.Path
    proxy_core: int
    load_core: int
    nice: int
    backends: list = dataclasses.field(default_factory=list)
    processes: list = dataclasses.field(default_factory=list)

    def start_origin(self):
        self.backends = [free_address() for _ in BACKENDS]
        origin = Process("origin", [CRATE_BINARIES / "origin"] + ["%s:%d" % a for a in self.backends], self.load_core, self)
        self.processes.append(origin)
        for address in self.backends:
            origin.wait_for(address)

    def load(self, peer, workload, seconds):
        """One wrk run: user and system microseconds per request, requests per second, failures."""
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "5s", "-s", HERE / "conf" / "load.lua",
                   "http://%s:%d" % peer.address, "--", workload.method, workload.path, workload.body_bytes]
        command += peer.visitors if workload.known_visitors else []
        before = peer.process.cpu_seconds()
        wrk = launch(command, self.load_core, self.nice, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = wrk.communicate()[0]
        user, system = (after - start for after, start in zip(peer.process.cpu_seconds(), before))
        found = [line for line in said.splitlines() if line.startswith("RESULT ")]
        if peer.process.child.poll() is not None or not found:
            raise Unusable(f"{peer.name} or wrk failed: {said.strip()}\n{peer.process.log_end()}")
        result = json.loads(found[0].removeprefix("RESULT "))
        # wrk counts answers of status 400 and above as requests; they are failures too
        completed = max(result["requests"] - result["failed"], 1)
        return {"cpu_us": (user + system) * 1e6 / completed, "user_us": user * 1e6 / completed, "system_us": system * 1e6 / completed,
                "requests_per_second": completed * 1e6 / result["microseconds"], "failed": result["failed"]}

    def idle(self, peer):
        """KiB that each idle keep-alive connection costs a freshly started peer, after one request on it."""
        peer.process.stop()
        peer.start(self)
        time.sleep(0.5)
        before, opened = peer.process.pss_kib(), []
        with contextlib.ExitStack() as open_connections:
            for number in range(IDLE_CONNECTIONS):
                connection = open_connections.enter_context(socket.create_connection(peer.address, 5))
                if exchange(connection, peer.visitors[number % VISITORS])[0] != 200:
                    raise Unusable(f"{peer.name} refuses connection {number + 1}\n{peer.process.log_end()}")
                connection.setblocking(False)
                opened.append(connection)
            time.sleep(2)
            memory = peer.process.pss_kib()
            if gone := sum(is_closed(connection) for connection in opened):
                raise Unusable(f"{peer.name} closed {gone} of {IDLE_CONNECTIONS} idle connections")
            return (memory - before) / IDLE_CONNECTIONS


def free_address():
    """Below the range from which the kernel takes ports for outgoing connections, which would race with us."""
    for port in range(free_address.next, 32000):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", port))
            free_address.next = port + 1
            return ("127.0.0.1", port)
    raise Unusable("no free port between 21000 and 32000")


free_address.next = 21000


def visit(address, cookies="", path="/1k"):
    with socket.create_connection(address, 5) as connection:
        return exchange(connection, cookies, path)


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def exchange(connection, cookies="", path="/1k"):
    """(status, backend, cookies after it) of one request."""
    cookie_field = f"Cookie: {cookies}\r\n" if cookies else ""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench.example\r\n{cookie_field}\r\n".encode())
    with connection.makefile("rb") as answer:
        status = int(answer.readline().split()[1])
        fields = []
        while line := answer.readline().decode().strip():
            name, _, value = line.partition(": ")
            fields.append((name.lower(), value))
        answer.read(int(dict(fields).get("content-length", 0)))
    jar = dict(pair.split("=", 1) for pair in cookies.split("; ") if pair)
    jar |= dict(value.split(";")[0].split("=", 1) for name, value in fields if name == "set-cookie")
    return status, dict(fields).get("x-backend"), "; ".join(f"{name}={value}" for name, value in jar.items())


def build_crate():
    """Bare Pingora and the origin; a comparison with another Pingora, allocator or profile would be worth nothing."""
    def essence(folder):
        manifest, lock = (tomllib.loads((folder / name).read_text()) for name in ("Cargo.toml", "Cargo.lock"))
        versions = {package["name"]: package["version"] for package in lock["package"]}
        return manifest["profile"]["release"], versions["pingora-proxy"], versions["mimalloc"]

    if essence(PROJECT) != essence(CRATE):
        raise Unusable(f"bare-pingora and tidegate differ in profile, Pingora or allocator: {essence(CRATE)} and {essence(PROJECT)}")
    say("building bare Pingora and the origin (minutes the first time)")
    # from within the crate, so that the project's .cargo/config.toml counts
    if subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", BUILT], cwd=CRATE).returncode:
        raise Unusable("bare-pingora does not build; apt-get install libssl-dev pkg-config cmake gcc")


def start_all(bench, chosen):
    ready = []
    for peer in chosen:
        try:
            peer.start(bench)
            ready.append(peer)
            say(f"{peer.name}: sticky, {VISITORS} visitors on {len(BACKENDS)} backends")
        except Unusable as problem:
            say(f"LEFT OUT {peer.name}: {problem}")
    return ready


def measure(bench, ready, names, rounds, seconds):
    """{workload: {peer: [result of each round]}}, for `idle` KiB per connection."""
    results = {name: {peer.name: [] for peer in ready} for name in names}
    for name in names:
        if name != "idle":
            for peer in ready:
                bench.load(peer, WORKLOADS[name], 1)  # warm, not counted
        for turn in range(1 if name == "idle" else rounds):
            first = turn % len(ready)  # nobody always follows the same one
            for peer in ready[first:] + ready[:first]:
                result = bench.idle(peer) if name == "idle" else bench.load(peer, WORKLOADS[name], seconds)
                results[name][peer.name].append(result)
                say(f"{name} {turn + 1} {peer.name}: " + (f"{result:.1f} KiB" if name == "idle" else f"{result['cpu_us']:.1f} us"))
    return results


def ratios(rounds, base):
    return [mine["cpu_us"] / other["cpu_us"] for mine, other in zip(rounds, base) if other["cpu_us"]]


def table(results):
    lines = []
    for name, by_peer in results.items():
        if name == "idle":
            lines += ["", f"idle: KiB per idle keep-alive connection, {IDLE_CONNECTIONS} of them (goal of tidegate: {IDLE_GOAL_KIB:g})", ""]
            lines += [f"  {peer:<14}{values[0]:10.1f}" for peer, values in by_peer.items()]
            continue
        workload = WORKLOADS[name]
        goal = f" (goal of tidegate: {workload.goal:g} x bare-pingora)" if workload.goal else ""
        bases = [base for base in BASELINES if by_peer.get(base)]
        lines += ["", f"{name}: {workload.note}{goal}", ""]
        lines.append(f"  {'':<14}{'CPU us':>8}{'user':>8}{'system':>8}" + "".join(f"{'x ' + base + ' (lowest-highest)':>34}" for base in bases)
                     + f"{'requests/s':>12}{'failed':>8}")
        for peer, rounds in by_peer.items():
            median = {key: statistics.median(result[key] for result in rounds) for key in rounds[0]}
            line = f"  {peer:<14}{median['cpu_us']:8.1f}{median['user_us']:8.1f}{median['system_us']:8.1f}"
            for base in bases:
                found = ratios(rounds, by_peer[base])
                line += f"{f'{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})':>34}"
            lines.append(line + f"{median['requests_per_second']:12,.0f}{sum(result['failed'] for result in rounds):8}")
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known_peers, known_workloads = list(peers("")), [*WORKLOADS, "idle"]
    parser.add_argument("--peers", default=",".join(known_peers), help="default: %(default)s")
    parser.add_argument("--workloads", default=",".join(known_workloads), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=int, default=4, help="of load, per round and peer; default: %(default)s")
    parser.add_argument("--nice", type=int, default=0, help="of proxies, backends and load alike; root on a busy machine: -15")
    parser.add_argument("--tidegate", default=str(PROJECT / "target" / "release" / "tidegate"), help="its binary; default: target/release/tidegate")
    parser.add_argument("--former", help="another build of tidegate, such as that of the commit before, measured beside it")
    parser.add_argument("--json", action="store_true", help="every single result as one JSON document instead of the tables")
    options = parser.parse_args()
    if options.former:
        options.peers, known_peers = f"{options.peers},former", [*known_peers, "former"]
    options.peers, options.workloads = options.peers.split(","), options.workloads.split(",")
    for chosen, known in ((options.peers, known_peers), (options.workloads, known_workloads)):
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return options


def main():
    options = arguments()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise Unusable("two cores are needed: one for the proxy, one for the load")
    for tool, remedy in (("wrk", "apt-get install wrk"), ("cargo", "install Rust (https://rustup.rs)")):
        if not shutil.which(tool):
            raise Unusable(f"no program {tool}; {remedy}")
    # a proxy may hold two descriptors per idle connection
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if "idle" in options.workloads and most != resource.RLIM_INFINITY and most < 2 * IDLE_CONNECTIONS + 500:
        raise Unusable(f"idle needs {2 * IDLE_CONNECTIONS + 500} open files, the limit is {most}; ulimit -Hn 20000 as root")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    build_crate()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="tidegate-compare-") as run:
        bench = Bench(pathlib.Path(run), proxy_core=cores[1], load_core=cores[0], nice=options.nice)
        os.sched_setaffinity(0, {bench.load_core})
        try:
            bench.start_origin()
            available = peers(options.tidegate, options.former)
            ready = start_all(bench, [available[name] for name in options.peers])
            if not ready:
                raise Unusable("nobody is left to be measured")
            results = measure(bench, ready, options.workloads, options.rounds, options.seconds)
        finally:
            for process in bench.processes:
                process.stop()
    print(json.dumps(results, indent=1) if options.json else table(results))


if __name__ == "__main__":
    try:
        main()
    except Unusable as problem:
        sys.exit(f"compare.py: {problem}")
