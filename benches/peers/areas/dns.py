"""DNS: names of a zone of 10,000 hosts, and names of others out of the cache. unbound serves the same zone, and forwards to the same server."""
import contextlib
import re

from common import CLIENT, OURS, SERVER, Area, Case, Server, Target, hostler, udp_port

HOSTS, ASKED, UPSTREAM = 10_000, 1_000, 5_399
ZONE, CACHED = "a zone of 10,000 hosts", "forwarded, from the cache"


def address(n):
    return f"10.60.{n // 250}.{n % 250 + 1}"


def zone_file(field):
    return f"{field.work}/maas.zone"


def prepare(field):
    with open(zone_file(field), "w") as f:
        f.write("$ORIGIN maas.\n$TTL 30\n@ IN SOA ns.maas. admin.maas. 1 600 1800 604800 30\n@ IN NS ns.maas.\nns IN A 10.55.0.1\n")
        f.writelines(f"node{n} IN A {address(n)}\n" for n in range(HOSTS))
    for name, domain in ((ZONE, "maas"), (CACHED, "example.test")):
        with open(queries(field, name), "w") as f:
            f.writelines(f"node{n}.{domain} A\n" for n in range(0, HOSTS, HOSTS // ASKED))


def queries(field, case):
    return f"{field.work}/queries-{'zone' if case == ZONE else 'cached'}"


def ours(field, case):
    plan = {"subnets": [{"id": 1, "cidr": "10.55.0.0/16", "rack_address": SERVER}], "listen": {"dns": [f"{SERVER}:53"]}}
    if case == ZONE:
        plan["zones"] = [{"name": "maas"}]
        plan["records"] = [{"name": f"node{n}.maas", "a": [address(n)]} for n in range(HOSTS)]
    return hostler(field, "dns", plan, udp_port(53), {"HOSTLER_DNS_UPSTREAMS": f"127.0.0.1:{UPSTREAM}"})


SETTINGS = """server:
 do-daemonize: no
 chroot: ""
 username: ""
 pidfile: ""
 use-syslog: no
 logfile: ""
 directory: "{work}"
 interface: {interface}
 access-control: 0.0.0.0/0 allow
 num-threads: 2
 so-reuseport: yes
 do-not-query-localhost: no
 module-config: "iterator"
 domain-insecure: "maas"
 domain-insecure: "example.test"
 local-zone: "test." nodefault
{more}"""


def unbound(field, name, interface, more, ready):
    work = field.fresh(name)
    with open(f"{work}/conf", "w") as f:
        f.write(SETTINGS.format(work=work, interface=interface, more=more))
    return Server(field, name, ["unbound", "-d", "-c", f"{work}/conf"], ready)


def peer(field, case):
    zone = f'auth-zone:\n name: "maas."\n zonefile: "{zone_file(field)}"\n for-downstream: yes\n for-upstream: no\n'
    forward = f'forward-zone:\n name: "."\n forward-addr: 127.0.0.1@{UPSTREAM}\n'
    return unbound(field, "unbound", f"{SERVER}@53", zone if case == ZONE else forward, udp_port(53))


def upstream(field):
    """Who knows the names of others: both forward to it."""
    hosts = "".join(f' local-data: "node{n}.example.test. 3600 IN A {address(n)}"\n' for n in range(0, HOSTS, HOSTS // ASKED))
    return unbound(field, "upstream", f"127.0.0.1@{UPSTREAM}", f' local-zone: "example.test." static\n{hosts}', udp_port(UPSTREAM))


def perf(field, case, *words):
    said = field.client("dnsperf", "-s", SERVER, "-a", CLIENT, "-d", queries(field, case), "-q", 100, *words)
    figure = {key: float(re.search(rf"{key}: +([\d.]+)", said).group(1)) for key in ("Queries completed", "Queries lost", "Queries per second")}
    codes = re.search(r"Response codes: +(.*)", said).group(1)
    assert codes.startswith("NOERROR") and "," not in codes, codes
    return figure


def asking(case, seconds=4):
    def measure(field, server):
        with contextlib.ExitStack() as stack:
            if case == CACHED:
                stack.enter_context(upstream(field))
            perf(field, case, "-n", 2)                       # Whatever has to be fetched is.
            with server.spending() as spent:
                got = perf(field, case, "-l", seconds)
        return {"cpu_us_per_query": spent.cpu * 1e6 / max(got["Queries completed"], 1), "queries_per_s": got["Queries per second"],
                "lost": got["Queries lost"], "pss_mb": server.pss_mb()}
    return measure


AREA = Area(
    name="dns",
    servers={OURS: ours, "unbound": peer},
    cases=[Case(case, asking(case)) for case in (ZONE, CACHED)],
    targets=[Target(case, "cpu_us_per_query", at_most=1.4, peers=("unbound",)) for case in (ZONE, CACHED)],
    programs={"unbound": "unbound", "dnsperf": "dnsperf"},
    prepare=prepare,
)
