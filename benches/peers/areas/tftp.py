"""TFTP: a file of 1 MiB to 50 and 500 clients at once, in lock step and with a window. Only atftpd knows windows besides us."""
import os
import shutil
import subprocess

from common import OURS, SERVER, Area, Case, Server, Target, hostler, udp_port

FILE, SIZE = "kernel", 1 << 20
SHAPES = [(512, 1), (1_428, 1), (1_428, 16)]
CLIENTS = [50, 500]


def root(field):
    return f"{field.work}/tftp"


def prepare(field):
    os.makedirs(root(field), exist_ok=True)
    with open(f"{root(field)}/{FILE}", "wb") as f:
        f.write(os.urandom(SIZE))
    # Debian's atftpd and tftpd-hpa exclude each other: this one is only unpacked.
    if not shutil.which("atftpd") and not os.path.exists(f"{field.work}/atftpd"):
        packages = field.fresh("packages")
        subprocess.run(["apt-get", "download", "-qq", "atftpd"], cwd=packages, check=True, capture_output=True)
        [package] = os.listdir(packages)
        subprocess.run(["dpkg", "-x", f"{packages}/{package}", f"{field.work}/atftpd"], check=True)


def ours(field, _case):
    subnet = {"id": 1, "cidr": "10.55.0.0/16", "rack_address": SERVER}
    plan = {"subnets": [subnet], "boot_files": [{"name": FILE, "path": f"{root(field)}/{FILE}"}]}
    return hostler(field, "tftp", plan, udp_port(69))


def hpa(field, _case):
    return Server(field, "tftpd-hpa", ["in.tftpd", "-L", "-4", "-a", f"{SERVER}:69", "-s", "-u", "root", root(field)], udp_port(69))


def atftpd(field, _case):
    program = shutil.which("atftpd") or f"{field.work}/atftpd/usr/sbin/atftpd"
    return Server(field, "atftpd", [program, "--daemon", "--no-fork", "--user", "root.root", "--bind-address", SERVER, "--port", "69",
                                    "--maxthread", "1000", "--logfile", "/dev/null", "--verbose=1", root(field)], udp_port(69))


def dnsmasq(field, _case):
    return Server(field, "dnsmasq", ["dnsmasq", "-k", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--port=0", "--user=root",
                                     f"--interface={field.server_if}", "--bind-interfaces", "--enable-tftp", "--tftp-max=2000",
                                     f"--tftp-root={root(field)}", f"--pid-file={field.work}/dnsmasq.pid"], udp_port(69))


def fetching(block, window, clients, seconds=3):
    def measure(field, server):
        with server.spending() as spent:
            got = field.load("tftp", "--server", SERVER, "--file", FILE, "--clients", clients, "--block", block, "--window", window,
                             "--seconds", seconds)
            memory = server.pss_mb()
        return {"cpu_ms_per_mb": spent.cpu * 1e3 / max(got["mb"], 0.001), "mb_per_s": got["mb"] / got["seconds"],
                "repeated": got["repeated"], "failed": got["failed"], "pss_mb": memory, **({"why": got["why"]} if got["why"] else {})}
    return measure


def at_once(field, server):
    """500 machines ask in the same moment, each once."""
    got = field.load("tftp", "--server", SERVER, "--file", FILE, "--clients", 500, "--block", 1_428)
    return {"requests_lost": got["asked_again"], "complete": got["complete"], "failed": got["failed"], "seconds": got["seconds"]}


def named(block, window, clients):
    return f"{block}:{window} x{clients}"


LOCK_STEP = [named(b, w, c) for b, w in SHAPES if w == 1 for c in CLIENTS]
WINDOW = [named(b, w, c) for b, w in SHAPES if w > 1 for c in CLIENTS]
STORM = "500 first requests"
AREA = Area(
    name="tftp",
    servers={OURS: ours, "dnsmasq": dnsmasq, "atftpd": atftpd, "tftpd-hpa": hpa},
    cases=[*(Case(named(b, w, c), fetching(b, w, c), (OURS, "atftpd") if w > 1 else ()) for b, w in SHAPES for c in CLIENTS),
           Case(STORM, at_once)],
    targets=[
        *(Target(case, "cpu_ms_per_mb", at_most=1, peers=("dnsmasq",)) for case in LOCK_STEP),
        *(Target(case, "cpu_ms_per_mb", at_most=0.5, peers=("atftpd",)) for case in WINDOW),
        *(Target(case, "mb_per_s", at_least=1.5, peers=("atftpd",)) for case in WINDOW),
        *(Target(case, "pss_mb", at_most=20) for case in (LOCK_STEP + WINDOW) if case.endswith("x500")),
        Target(STORM, "requests_lost", at_most=0)],
    programs={"in.tftpd": "tftpd-hpa", "dnsmasq": "dnsmasq-base", "apt-get": "apt"},
    prepare=prepare,
)
