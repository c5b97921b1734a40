"""NTP: answers per CPU second of our own server beside chrony, one question outstanding and 32."""
from common import OURS, SERVER, Area, Case, Server, Target, hostler, udp_port

PORT, SECONDS = 123, 3
# Asks with so many outstanding; prints how many answers came, in how many seconds, and the median round trip in microseconds.
ASK = r"""
import json, socket, sys, time
server, window, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((server, 123))
s.settimeout(0.5)
ask, now = bytes([0x23, 0, 6, 0xec]) + bytes(44), time.perf_counter
answers, took, begin = 0, [], now()
while now() - begin < seconds:
    sent = now()
    for _ in range(window):
        s.send(ask)
    try:
        for _ in range(window):
            assert len(s.recv(64)) == 48
            answers += 1
    except TimeoutError:
        continue
    took.append((now() - sent) / window)
took.sort()
print(json.dumps({"answers": answers, "seconds": now() - begin, "p50_us": took[len(took) // 2] * 1e6}))
"""


def ours(field, _case):
    plan = {"subnets": [{"id": 1, "cidr": "10.55.0.0/16"}], "listen": {"ntp": [f"{SERVER}:{PORT}"]}}
    # chrony limits no client unless told to, so neither does ours here.
    return hostler(field, "ntp", plan, udp_port(PORT), {"HOSTLER_NTP_SERVER": "own", "HOSTLER_NTP_RATE": "0"})


def chrony(field, _case):
    state = field.fresh("chrony")
    config = f"{state}/chrony.conf"
    with open(config, "w") as f:
        f.write(f"local stratum 8\nallow all\nport {PORT}\ncmdport 0\nbindcmdaddress /\nbindaddress {SERVER}\n"
                f"pidfile {state}/pid\ndriftfile {state}/drift\n")
    return Server(field, "chrony", ["chronyd", "-x", "-d", "-u", "root", "-f", config], udp_port(PORT))


def asking(window):
    def measure(field, server):
        import json
        with server.spending() as spent:
            got = json.loads(field.client("python3", "-c", ASK, SERVER, window, SECONDS))
        return {"answers_per_cpu_s": got["answers"] / max(spent.cpu, 1e-6), "answers_per_s": got["answers"] / got["seconds"],
                "p50_us": got["p50_us"], "pss_mb": server.pss_mb()}
    return measure


CASES = [Case(f"{window} outstanding", asking(window)) for window in (1, 32)]
AREA = Area(
    name="ntp",
    servers={OURS: ours, "chrony": chrony},
    cases=CASES,
    targets=[Target(case.name, "answers_per_cpu_s", at_least=0.8, peers=("chrony",)) for case in CASES],
    programs={"chronyd": "chrony", "python3": "python3"},
)
