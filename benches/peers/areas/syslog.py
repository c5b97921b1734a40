"""Syslog: lines per CPU second received, parsed, attached to their machine and written to a file, beside rsyslog; by TCP and by UDP."""
import glob
import time

from common import CLIENT, OURS, SERVER, Area, Case, Server, Target, hostler, tcp_port

PORT, TCP_LINES, UDP_LINES, UDP_RATE = 5_247, 300_000, 100_000, 40_000
MAC = "52:54:00:55:00:02"
# Sends so many lines, by UDP at a rate.
SEND = r"""
import socket, sys, time
kind, server, port, lines, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
text = (b"<134>1 2026-01-01T00:00:00.000000Z node%06d cloud-init 1234 - - Cloud-init v. 24.1 running modules:config at "
        b"Thu, 01 Jan 2026 00:00:00 +0000. Up 31.52 seconds.\n")
if kind == "TCP":
    s = socket.create_connection((server, port))
    for i in range(0, lines, 500):
        s.sendall(b"".join(text % (k % 1000) for k in range(i, min(i + 500, lines))))
    s.close()
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((server, port))
    begin = time.perf_counter()
    for i in range(lines):
        s.send((text % (i % 1000))[:-1])
        if i % 64 == 0:
            time.sleep(max(0, begin + i / rate - time.perf_counter()))
"""


def ours(field, _case):
    ticket = {"machine": "abc234", "attempt": 0, "purpose": "local", "macs": [MAC], "hostname": "node", "domain": "lab", "arch": "amd64",
              "expires": 2**63 - 1}
    plan = {"subnets": [{"id": 1, "cidr": "10.55.0.0/16"}], "reservations": [{"subnet": 1, "mac": MAC, "ip": CLIENT}],
            "tickets": [ticket], "listen": {"syslog": [f"{SERVER}:{PORT}"]}}
    server = hostler(field, "syslog", plan, tcp_port(PORT), {"HOSTLER_SYSLOG_RATE": "0", "HOSTLER_SYSLOG_KEEP_MEBIBYTES": "1024"})
    server.files = f"{server.state}/logs/abc234/*.log"
    return server


def rsyslog(field, _case):
    state = field.fresh("rsyslog")
    config, out = f"{state}/rsyslog.conf", f"{state}/out"
    with open(config, "w") as f:
        f.write(f"""module(load="imtcp" MaxSessions="2000") module(load="imudp" BatchSize="128") global(workDirectory="{state}")
template(name="t" type="string" string="%timegenerated% %hostname% %syslogtag%%msg%\\n")
input(type="imtcp" port="{PORT}" address="{SERVER}") input(type="imudp" port="{PORT}" address="{SERVER}" rcvbufSize="8m")
main_queue(queue.size="1000000" queue.dequeueBatchSize="2048" queue.workerThreads="1")
action(type="omfile" file="{out}" template="t" ioBufferSize="64k" asyncWriting="off" flushOnTXEnd="on")
""")
    server = Server(field, "rsyslog", ["rsyslogd", "-n", "-f", config, "-i", f"{state}/pid"], tcp_port(PORT))
    server.files = out
    return server


def written(server, seen):
    """Lines in the server's files, of which `seen` remembers how far each was counted. A file that was rotated away stays counted."""
    for name in glob.glob(server.files):
        at, lines = seen.get(name, (0, 0))
        with open(name, "rb") as f:
            f.seek(at)
            new = f.read()
        seen[name] = (at + len(new), lines + new.count(b"\n"))
    return sum(lines for _, lines in seen.values())


def sending(kind, lines):
    def measure(field, server):
        seen, kept = {}, 0
        with server.spending() as spent:
            field.client("python3", "-c", SEND, kind, SERVER, PORT, lines, UDP_RATE)
            last = time.monotonic()
            while kept < lines and time.monotonic() - last < 2:
                now = written(server, seen)
                last = time.monotonic() if now > kept else last
                kept = max(kept, now)
                time.sleep(0.05)
        return {"lines_per_cpu_s": kept / max(spent.cpu, 1e-6), "lost_percent": 100 * (1 - kept / lines), "pss_mb": server.pss_mb()}
    return measure


CASES = [Case("TCP", sending("TCP", TCP_LINES)), Case("UDP", sending("UDP", UDP_LINES))]
AREA = Area(
    name="syslog",
    servers={OURS: ours, "rsyslog": rsyslog},
    cases=CASES,
    targets=[*(Target(case.name, "lines_per_cpu_s", at_least=0.8, peers=("rsyslog",)) for case in CASES),
             *(Target(case.name, "lost_percent", at_most=0.1) for case in CASES)],
    programs={"rsyslogd": "rsyslog", "python3": "python3"},
)
