"""What every comparison with peers shares: two namespaces and a cable, servers with their CPU counted, rounds, ratios, one table.

An area (a file in areas/) has an `AREA`: servers, cases and targets. `compare` runs every case with every server in turn, round by
round (A B C, A B C, …); `judge` takes the ratio of ours to the best peer of the same round, and the median of those. Rates hang on
what else the machine does and swing by factors; the server's CPU per unit of work swings by a tenth: it is the figure to go by.
"""
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import time
import types
from typing import Callable

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SERVER, CLIENT, CLIENT2, PREFIX = "10.55.0.1", "10.55.0.2", "10.55.0.3", 16
OURS = "hostler"


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, capture_output=True, **options).stdout


def until(ready, seconds, what):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


# CPU of a server, children that ended included ----------------------------------------------------------------------

class Account:
    """CPU seconds and processes of one server: by a control group (version 1 or 2), else by /proc."""

    def __init__(self, name):
        self.pid, self.group, self.unit = None, None, 0.0
        for top, file, unit in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage", 1e9), ("/sys/fs/cgroup", "cpu.stat", 1e6)):
            if not os.path.exists(f"{top}/{file if unit == 1e9 else 'cgroup.controllers'}"):
                continue
            with contextlib.suppress(OSError):
                self.group = f"{top}/hostler-peers-{os.getpid()}-{name}"
                os.makedirs(self.group, exist_ok=True)
                self.file, self.unit = f"{self.group}/{file}", unit
                return
            self.group = None

    def join(self):
        """Called by the server's process before it becomes the server."""
        if self.group:
            with open(f"{self.group}/cgroup.procs", "w") as f:
                f.write(str(os.getpid()))

    def pids(self):
        if self.group:
            with open(f"{self.group}/cgroup.procs") as f:
                return [int(line) for line in f]
        return list(_tree(self.pid))

    def cpu(self):
        if self.group:
            with open(self.file) as f:
                words = f.read().split()
            return int(words[0] if len(words) == 1 else words[words.index("usage_usec") + 1]) / self.unit
        return sum(sum(map(int, _stat(p)[11:15])) for p in _tree(self.pid)) / os.sysconf("SC_CLK_TCK")

    def close(self):
        for _ in range(50):
            with contextlib.suppress(OSError):
                if self.group:
                    os.rmdir(self.group)
                return
            time.sleep(0.1)


def _stat(pid):
    """The fields of /proc/PID/stat after the name: 1 is the parent, 11 to 14 are the times."""
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(") ")[2].split()


def _tree(pid):
    parents = {}
    for other in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents.setdefault(int(_stat(other)[1]), []).append(int(other))
    todo = [pid]
    for at in todo:
        yield at
        todo += parents.get(at, [])


# Namespaces and servers ---------------------------------------------------------------------------------------------

class Field:
    """Two namespaces joined by a cable: the server's (10.55.0.1) and the client's (10.55.0.2 and .3)."""

    def __init__(self, work, binary, load):
        self.work, self.binary, self.loader = os.path.abspath(work), binary, load
        self.server_ns, self.client_ns = (f"peers-{os.getpid()}-{end}" for end in ("server", "client"))
        self.server_if, self.client_if = "peers0", "peers1"

    def __enter__(self):
        os.makedirs(self.work, exist_ok=True)
        os.chmod(self.work, 0o755)
        for ns in (self.server_ns, self.client_ns):
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
        run("ip", "link", "add", self.server_if, "netns", self.server_ns, "type", "veth",
            "peer", "name", self.client_if, "netns", self.client_ns)
        ends = ((self.server_ns, self.server_if, [SERVER]), (self.client_ns, self.client_if, [CLIENT, CLIENT2]))
        for ns, interface, addresses in ends:
            for address in addresses:
                run("ip", "-n", ns, "addr", "add", f"{address}/{PREFIX}", "brd", "+", "dev", interface)
            run("ip", "-n", ns, "link", "set", interface, "up")
            run(*self.inside(ns, "sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 65000", "net.core.somaxconn=4096"))
        until(lambda: "state UP" in run("ip", "-n", self.client_ns, "link", "show", self.client_if), 5, "the cable")
        return self

    def __exit__(self, *_):
        for ns in (self.server_ns, self.client_ns):
            subprocess.run(["ip", "netns", "del", ns], check=False)

    def inside(self, namespace, *command):
        return ["ip", "netns", "exec", namespace, *map(str, command)]

    def client(self, *command, seconds=120):
        """Runs a program in the client's namespace; its standard output."""
        done = subprocess.run(self.inside(self.client_ns, *command), text=True, capture_output=True, timeout=seconds)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
        return done.stdout

    def load(self, *words, seconds=120):
        """Runs our load generator (load/) in the client's namespace; the JSON object it prints."""
        return json.loads(self.client(self.loader, *words, seconds=seconds).splitlines()[-1])

    def fresh(self, name):
        """An empty directory that a server of any user may write to."""
        path = f"{self.work}/{name}"
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        os.chmod(path, 0o777)
        return path


class Server:
    """One server in the server's namespace, in the foreground. `ready(server)` tells when it answers."""

    def __init__(self, field, name, command, ready, env=None):
        self.field, self.name, self.command, self.ready = field, name, [str(word) for word in command], ready
        self.env, self.log = env or {}, f"{field.work}/{name}.log"

    def __enter__(self):
        self.account = Account(self.name)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.field.inside(self.field.server_ns, *self.command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, **self.env}, preexec_fn=self.account.join)
        self.pid = self.account.pid = self.process.pid
        try:
            until(lambda: self._alive() and self.ready(self), 30, f"{self.name} answers")
        except Exception as why:
            self.__exit__()
            with open(self.log, errors="replace") as f:
                raise RuntimeError(f"{why}\n{f.read()[-1500:]}") from None
        return self

    def _alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}")
        return True

    def __exit__(self, *_):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
                break
        for pid in self.account.pids() if self.account.group else []:      # What left the process group, by its id.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.account.close()

    @contextlib.contextmanager
    def spending(self):
        """`with server.spending() as spent:` … then `spent.cpu` in seconds and `spent.wall`."""
        spent = types.SimpleNamespace(cpu=0.0, wall=0.0)
        cpu, wall = self.account.cpu(), time.monotonic()
        yield spent
        spent.cpu, spent.wall = self.account.cpu() - cpu, time.monotonic() - wall

    def pss_mb(self):
        """Memory of the server's processes, shared pages by their share, in MB."""
        total = 0
        for pid in self.account.pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as f:
                total += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        return total / 1024


def udp_port(port):
    """Ready when the server's namespace has a UDP socket on that port."""
    return lambda server: _listens(server, "udp", port, "07")


def tcp_port(port):
    """Ready when the server's namespace has a TCP socket that listens on that port."""
    return lambda server: _listens(server, "tcp", port, "0A")


def _listens(server, kind, port, state):
    with open(f"/proc/{server.pid}/net/{kind}") as f:
        rows = [line.split() for line in f][1:]
    return any(row[1].endswith(f":{port:04X}") and row[3] == state for row in rows)


def hostler(field, only, plan, ready, env=None):
    """Our rack serving `only` (comma-separated) from a plan file; its state is new, in `server.state`."""
    state, files = field.fresh(f"{OURS}-state"), field.fresh(f"{OURS}-plan")
    with open(f"{files}/plan.json", "w") as f:
        json.dump(plan, f)
    command = [field.binary, "rack", "--plan", f"{files}/plan.json", "--only", only, "--state", state]
    server = Server(field, OURS, command, ready, {"HOSTLER_LOG": "warn", "RUST_LOG": "warn", **(env or {})})
    server.state = state
    return server


# Areas, rounds, judgement -------------------------------------------------------------------------------------------

@dataclasses.dataclass
class Case:
    """One thing to measure. `measure(field, server)` loads a running server and returns its figures, by name."""
    name: str
    measure: Callable
    servers: tuple = ()      # Only these; empty: all of the area.


@dataclasses.dataclass
class Target:
    """What a figure of ours must be: beside the best of `peers` in the same round, or, without peers, by itself."""
    case: str
    figure: str
    at_most: float = None
    at_least: float = None
    peers: tuple = ()


@dataclasses.dataclass
class Area:
    """Servers by name (`make(field, case_name) -> Server`), ours among them, with the programs that they need and their packages."""
    name: str
    servers: dict
    cases: list
    targets: list
    programs: dict = dataclasses.field(default_factory=dict)
    prepare: Callable = lambda field: None


def compare(field, area, rounds, chosen, say):
    """All rows: a dict of figures for each round, case and server."""
    area.prepare(field)
    rows = []
    for number in range(rounds):
        for case in area.cases:
            names = [n for n in case.servers or area.servers if not chosen or n in chosen]
            turn = number % max(1, len(names))                    # Nobody is always the first.
            for name in names[turn:] + names[:turn]:
                row = {"area": area.name, "case": case.name, "server": name, "round": number}
                try:
                    with area.servers[name](field, case.name) as server:
                        figures = case.measure(field, server)
                except Exception as why:                                 # One that fails loses its row, not the run.
                    figures = {"error": f"{type(why).__name__}: {why}"}
                rows.append({**row, **figures})
                shown = (f"{key} {_short(value)}" for key, value in figures.items())
                say(f"{area.name} round {number + 1}: {case.name}, {name}: {', '.join(shown)}")
    return rows


def judge(area, rows):
    """For each target: ours, the best peer, their ratio, whether it holds."""
    verdicts = []
    for target in area.targets:
        better = min if target.at_most is not None else max
        ratios, ours, best, names = [], [], [], []
        for number in sorted({row["round"] for row in rows}):
            found = {row["server"]: row[target.figure] for row in rows
                     if (row["case"], row["round"]) == (target.case, number) and row.get(target.figure) is not None}
            peers = {name: value for name, value in found.items() if name in target.peers}
            if OURS not in found or target.peers and not peers:
                continue
            ours.append(found[OURS])
            if peers:
                name = better(peers, key=peers.get)
                names.append(name)
                best.append(peers[name])
                ratios.append(found[OURS] / peers[name] if peers[name] else float("inf"))
        judged = ratios if target.peers else ours
        value = statistics.median(judged) if judged else None
        holds = value is not None and (value <= target.at_most if target.at_most is not None else value >= target.at_least)
        verdicts.append({
            "area": area.name, "case": target.case, "figure": target.figure, "ours": _median(ours), "peer": _median(best),
            "best": max(set(names), key=names.count) if names else None, "ratio": value if target.peers else None,
            "spread": [min(judged), max(judged)] if judged else None, "rounds": len(judged), "target": _bound(target), "holds": holds})
    return verdicts


def _median(values):
    return statistics.median(values) if values else None


def _bound(target):
    return f"<= {target.at_most:g}" if target.at_most is not None else f">= {target.at_least:g}"


def _short(value):
    if value is None:
        return "-"
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(head, rows):
    """A table of Markdown."""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
                      *("| " + " | ".join(map(_short, row)) + " |" for row in rows)])


def verdict_table(verdicts):
    head = ["area", "case", "figure", "ours", "best peer", "ratio (range)", "target", "holds"]

    def ratio(v):
        return "-" if v["ratio"] is None else f"{v['ratio']:.2f} ({v['spread'][0]:.2f}..{v['spread'][1]:.2f}, n={v['rounds']})"
    return table(head, [[v["area"], v["case"], v["figure"], v["ours"],
                         "-" if v["peer"] is None else f"{_short(v['peer'])} {v['best']}", ratio(v), v["target"],
                         "yes" if v["holds"] else "NO"] for v in verdicts])


def figures_table(rows):
    """Medians of every figure, by case and server."""
    cells = {}
    for row in rows:
        cells.setdefault((row["area"], row["case"], row["server"]), []).append(row)
    fixed = ("area", "case", "server", "round")
    lines = []
    for key, found in cells.items():
        names = [n for n in dict.fromkeys(n for row in found for n in row) if n not in fixed]
        values = {n: [row[n] for row in found if row.get(n) is not None] for n in names}
        shown = [f"{n} {_short(_median(v) if all(isinstance(x, (int, float)) for x in v) else v[0])}" for n, v in values.items() if v]
        lines.append([*key, ", ".join(shown).replace("|", "/").replace("\n", " ")])
    return table(["area", "case", "server", "medians"], lines)
