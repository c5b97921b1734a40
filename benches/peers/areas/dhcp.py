"""DHCP: first leases as in a storm of machines that boot, renewals, and how soon a new reservation is honoured. All through a relay.

Ours writes each lease to disk before its ACK, in groups; so does isc-dhcpd, one by one; dnsmasq writes the whole file anew; Kea
does not sync at all. ping-check is off everywhere.
"""
import json
import os
import statistics
import subprocess
import time

from common import CLIENT, CLIENT2, OURS, PREFIX, SERVER, Area, Case, Server, Target, hostler, udp_port

SUBNET, FIRST, LAST = f"10.55.0.0/{PREFIX}", "10.55.16.0", "10.55.127.254"
EXISTING = {f"a reservation beside {count:,}": count for count in (0, 1_000, 10_000)}
NEW = 20_000        # The number of the first reservation that is made.
KEY = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"


def reserved(number):
    """MAC and address of a reservation by its number: to the load generator it is client 2^24 + number."""
    a, b, c = (number >> shift & 255 for shift in (16, 8, 0))
    return f"02:0c:01:{a:02x}:{b:02x}:{c:02x}", f"10.55.{128 + number // 250}.{number % 250 + 1}"


def hosts(case):
    return [reserved(number) for number in range(EXISTING.get(case, 0))]


def ours(field, case):
    subnet = {"id": 1, "cidr": SUBNET, "rack_address": SERVER, "dhcp": True, "strangers": "local", "dns_servers": [SERVER],
              "gateway": "10.55.0.254", "dynamic": [{"start": FIRST, "end": LAST}]}
    rows = [{"subnet": 1, "mac": mac, "ip": ip, "hostname": f"n{n}"} for n, (mac, ip) in enumerate(hosts(case))]
    settings = {"lease_s": 3_600, "pxe_lease_s": 3_600}
    server = hostler(field, "dhcp", {"settings": settings, "subnets": [subnet], "reservations": rows}, udp_port(67))
    server.reserve = lambda mac, ip, name: [
        "--socket", f"{server.state}/control.sock", "--", json.dumps({"reserve": {"mac": mac, "ip": ip, "name": name}})]
    return server


def kea(threads):
    def make(field, case):
        name = "kea" if threads else "kea-1"
        directory = field.fresh(name)
        rows = [{"hw-address": mac, "ip-address": ip, "hostname": f"n{n}"} for n, (mac, ip) in enumerate(hosts(case))]

        def write(rows):
            with open(f"{directory}/kea.json", "w") as f:
                json.dump({"Dhcp4": {
                    "interfaces-config": {"interfaces": [field.server_if], "dhcp-socket-type": "udp"},
                    "control-socket": {"socket-type": "unix", "socket-name": f"{directory}/kea.sock"},
                    "lease-database": {"type": "memfile", "persist": True, "name": f"{directory}/leases.csv", "lfc-interval": 0},
                    "multi-threading": {"enable-multi-threading": threads, "thread-pool-size": 2, "packet-queue-size": 64},
                    "valid-lifetime": 3600, "sanity-checks": {"lease-checks": "none"},
                    "option-data": [{"name": "domain-name-servers", "data": SERVER}, {"name": "routers", "data": "10.55.0.254"}],
                    "client-classes": [{"name": "uefi", "test": "option[93].hex == 0x0007", "boot-file-name": "bootx64.efi",
                                        "next-server": SERVER}],
                    "subnet4": [{"id": 1, "subnet": SUBNET, "pools": [{"pool": f"{FIRST} - {LAST}"}],
                                 "reservations-global": False, "reservations-in-subnet": True, "reservations": rows}],
                    "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": f"{directory}/log"}]}]}}, f)

        def reserve(mac, ip, name):
            rows.append({"hw-address": mac, "ip-address": ip, "hostname": name})
            write(rows)
            return ["--socket", f"{directory}/kea.sock", "--", '{"command": "config-reload"}']
        write(rows)
        paths = {name: directory for name in ("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR")}
        server = Server(field, name, ["kea-dhcp4", "-c", f"{directory}/kea.json"], udp_port(67), paths)
        server.reserve = reserve
        return server
    return make


def isc(field, case):
    directory = field.fresh("isc")
    lines = "".join(f"host n{n} {{ hardware ethernet {mac}; fixed-address {ip}; }}\n" for n, (mac, ip) in enumerate(hosts(case)))
    with open(f"{directory}/dhcpd.conf", "w") as f:
        f.write(f"""authoritative; ddns-update-style none; ping-check false; default-lease-time 3600; max-lease-time 3600;
omapi-port 7911; key omapi {{ algorithm HMAC-MD5; secret "{KEY}"; }}; omapi-key omapi;
option arch code 93 = unsigned integer 16;
class "uefi" {{ match if option arch = 7; filename "bootx64.efi"; next-server {SERVER}; }}
subnet 10.55.0.0 netmask 255.255.0.0 {{
  option routers 10.55.0.254; option domain-name-servers {SERVER}; pool {{ range {FIRST} {LAST}; }} }}
{lines}""")
    open(f"{directory}/leases", "w").close()
    files = ["-cf", f"{directory}/dhcpd.conf", "-lf", f"{directory}/leases"]
    server = Server(field, "isc-dhcpd", ["dhcpd", "-4", "-f", "-q", "--no-pid", *files, "-user", "root", "-group", "root",
                                         field.server_if], udp_port(67))

    def reserve(mac, ip, name):
        with open(f"{directory}/omapi", "w") as f:
            f.write(f"server 127.0.0.1\nport 7911\nkey omapi {KEY}\nconnect\nnew host\nset name = \"{name}\"\n"
                    f"set hardware-address = {mac}\nset hardware-type = 1\nset ip-address = {ip}\ncreate\n")
        return ["--", "sh", "-c", f"nsenter --net=/run/netns/{field.server_ns} omshell < {directory}/omapi"]
    server.reserve = reserve
    return server


def dnsmasq(field, case):
    directory = field.fresh("dnsmasq")
    os.makedirs(f"{directory}/hosts")
    with open(f"{directory}/hosts/first", "w") as f:
        f.writelines(f"{mac},{ip},n{n}\n" for n, (mac, ip) in enumerate(hosts(case)))
    server = Server(field, "dnsmasq", [
        "dnsmasq", "-k", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping",
        f"--interface={field.server_if}", "--bind-interfaces", "--dhcp-authoritative", "--quiet-dhcp", "--dhcp-lease-max=100000",
        f"--dhcp-range={FIRST},{LAST},255.255.0.0,3600", f"--dhcp-hostsdir={directory}/hosts",
        "--dhcp-match=set:uefi,option:client-arch,7", "--dhcp-boot=tag:uefi,bootx64.efi",
        f"--dhcp-leasefile={directory}/leases", f"--pid-file={directory}/pid"], udp_port(67))
    server.reserve = lambda mac, ip, name: ["--file", f"{directory}/hosts/{name}", "--", f"{mac},{ip},{name}"]
    return server


def answering(field):
    """Ours listens for a second at its start whether another server is on the wire, and leaves new clients to that one."""
    while field.load("dhcp", "--server", SERVER, "--relay", CLIENT, "--clients", 1, "--window", 1, "--first", 8_000_000)["lost"]:
        pass


def exchanges(clients, window, seconds=None):
    def measure(field, server):
        answering(field)
        more = [] if seconds is None else ["--seconds", seconds]
        with server.spending() as spent:
            got = field.load("dhcp", "--server", SERVER, "--relay", CLIENT, "--clients", clients, "--window", window, *more)
        return {"rate": got["rate"], "cpu_us": spent.cpu * 1e6 / max(1, got["done"]), "p50_ms": got["p50_ms"],
                "p99_ms": got["p99_ms"], "lost": got["lost"], "leases": got["addresses"]}
    return measure


def renewals(field, server):
    field.load("dhcp", "--server", SERVER, "--relay", CLIENT, "--clients", 200, "--window", 16)
    return exchanges(200, 1, seconds=2)(field, server)


def commit_ms(field):
    """What a small commit costs on this disk now, in ms: five pages of a file that is there, written anew and synced. Four samples."""
    took = []
    with open(f"{field.work}/commit", "w+b") as f:
        f.write(bytes(1 << 20))
        os.fsync(f.fileno())
        for _ in range(4):
            began = time.monotonic()
            for page in range(5):
                os.pwrite(f.fileno(), os.urandom(4_096), page * 16_384)
            os.fdatasync(f.fileno())
            took.append((time.monotonic() - began) * 1e3)
    return took


def reservations(field, server):
    """From the moment the server is told, by the shortest way it has, to the first offer of that address; a hundred other leases a second meanwhile."""
    answering(field)
    through = ("dhcp", "--server", SERVER, "--relay", CLIENT, "--clients", "200", "--first", "9000000", "--window", "64",
               "--rate", "100", "--seconds", "4")
    probes, commits = [], []
    with server.spending() as spent, subprocess.Popen(
            field.inside(field.client_ns, field.loader, *through), stdout=subprocess.PIPE, text=True) as others:
        for number in range(NEW, NEW + 5):
            mac, ip = reserved(number)
            commits += commit_ms(field)
            probes.append(field.load("probe", "--server", SERVER, "--relay", CLIENT2, "--client", (1 << 24) + number, "--wanted", ip,
                                     *server.reserve(mac, ip, f"new{number}")))
        rest = json.loads(others.communicate(timeout=60)[0])
    honoured = [probe["honoured_ms"] for probe in probes if probe["honoured_ms"] is not None]
    if len(honoured) < len(probes):
        raise RuntimeError(f"{len(probes) - len(honoured)} of {len(probes)} reservations were never honoured")
    median, commit = statistics.median(honoured), statistics.median(commits)
    return {"honoured_ms": median, "commit_ms": commit, "beyond_commit_ms": median - commit,
            "silence_ms": max(probe["silence_ms"] for probe in probes), "lost": sum(p["lost"] for p in probes) + rest["lost"],
            "cpu_s": spent.cpu}


STORM, BIG_STORM, AGAIN = "first leases of 1,000", "first leases of 10,000", "renewals, one at a time"
AREA = Area(
    name="dhcp",
    servers={OURS: ours, "kea": kea(True), "kea-1": kea(False), "isc-dhcpd": isc, "dnsmasq": dnsmasq},
    cases=[Case(STORM, exchanges(1_000, 64)),
           Case(BIG_STORM, exchanges(10_000, 64), (OURS, "kea", "kea-1", "isc-dhcpd")),
           Case(AGAIN, renewals, (OURS, "kea", "kea-1", "isc-dhcpd")),
           *(Case(name, reservations, (OURS, "kea", "isc-dhcpd", "dnsmasq")) for name in EXISTING)],
    targets=[
        *(Target(storm, "rate", at_least=0.8, peers=("kea", "kea-1")) for storm in (STORM, BIG_STORM)),
        *(Target(storm, "cpu_us", at_most=0.6, peers=("kea",)) for storm in (STORM, BIG_STORM)),
        *(Target(storm, "rate", at_least=4, peers=("isc-dhcpd",)) for storm in (STORM, BIG_STORM)),
        *(Target(storm, "lost", at_most=0) for storm in (STORM, BIG_STORM)),
        Target(AGAIN, "p50_ms", at_most=1.2, peers=("kea", "kea-1")),
        *(Target(name, "beyond_commit_ms", at_most=2) for name in EXISTING),
        *(Target(name, "lost", at_most=0) for name in EXISTING)],
    programs={"kea-dhcp4": "kea-dhcp4-server", "dhcpd": "isc-dhcp-server", "omshell": "isc-dhcp-server", "dnsmasq": "dnsmasq-base"},
)
