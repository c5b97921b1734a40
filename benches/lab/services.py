"""Tests of what racks give machines beside the boot: names, time, logs, packages; and of racks that stand in for each other."""
import ipaddress
import os
import re
import shutil
import subprocess
import time

import wire
from bench import FULL_LIMIT, TINY_LIMIT, Bench, check, commission, dump
from lab import HERE, MGMT_NET, NET, run

UPSTREAM = f"{MGMT_NET}.20"
NAME = f"{NET.replace('.', '-')}-0--24.maas-internal"
LEAVES_ROTATION_S = 10


# The world behind the racks ------------------------------------------------------------------------------------------

def start_upstream(lab):
    """A name server and a package repository on the management side: racks reach them, machines do not."""
    ns = f"{lab.name}-world"
    run("ip", "netns", "add", ns)
    lab.namespaces.append(ns)
    run("ip", "-n", ns, "link", "set", "lo", "up")
    lab.leg("mgmt0", ns, UPSTREAM)
    lab.spawn("dnsmasq", ["dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", f"--listen-address={UPSTREAM}", "--bind-interfaces",
                          f"--address=/repo.lab/{UPSTREAM}", "--local=/#/", f"--pid-file={lab.work}/dnsmasq.pid", "--user=root"], ns)
    lab.spawn("repository", ["python3", "-m", "http.server", "80", "--bind", UPSTREAM, "--directory", repository(lab.work)], ns)


def repository(work):
    """A flat repository with one package, `lab-hello`, made with Debian's own tools."""
    top, package = f"{work}/repository", f"{work}/package"
    shutil.rmtree(package, ignore_errors=True)
    os.makedirs(f"{package}/DEBIAN")
    os.makedirs(f"{package}/usr/bin")
    os.makedirs(top, exist_ok=True)
    with open(f"{package}/DEBIAN/control", "w") as f:
        f.write("Package: lab-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: lab <lab@lab.invalid>\nDescription: says hello\n")
    with open(f"{package}/usr/bin/lab-hello", "w") as f:
        f.write("#!/bin/sh\necho hello from the package\n")
    os.chmod(f"{package}/usr/bin/lab-hello", 0o755)
    run("dpkg-deb", "--root-owner-group", "--build", package, f"{top}/lab-hello_1.0_all.deb")
    for name, words in (("Packages", ["packages"]), ("Release", ["release"])):
        text = run("apt-ftparchive", *words, ".", cwd=top)
        with open(f"{top}/{name}", "w") as f:
            f.write(text)
    return top


PROBE = f"""#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: 90-lab-probe
# title: Names, time, logs and packages from the rack
# timeout: 300
# --- End MAAS 1.0 script metadata ---
set -eux
rack=$(awk '/^nameserver/ {{print $2; exit}}' /etc/resolv.conf)
test "$(dig +short {NAME} A)" = "$rack"
test "$(dig +short @"$rack" repo.lab A)" = {UPSTREAM}
test -z "$(dig +short -x 192.0.2.1)"
dig "$(hostname).maas" A | grep -q "status: NOERROR"
ntpdig "$rack"
logger --server {NAME} --port 5247 --udp --rfc3164 --tag lab-probe "hello over UDP"
logger --server {NAME} --port 5247 --tcp --octet-count --tag lab-probe "hello over TCP"
grep -rq "{NAME}:8000" /etc/apt/apt.conf.d/
echo "deb [trusted=yes] http://repo.lab/ ./" > /etc/apt/sources.list
rm -rf /etc/apt/sources.list.d/*
apt-get -q update
apt-get -q -y install lab-hello
test "$(lab-hello)" = "hello from the package"
"""


# Tests -----------------------------------------------------------------------------------------------------------------

def from_the_rack(work, image):
    """The full image with nothing reachable but its rack: names, time, logs, packages; the capture shows no other partner."""
    with Bench(work, "svc", image["full"]) as b:
        start_upstream(b.lab)
        b.p.run("setting", "set", "upstream_dns", UPSTREAM)
        script = f"{b.lab.work}/90-lab-probe"
        with open(script, "w") as f:
            f.write(PROBE)
        b.p.run("script", "add", script)
        m = b.lab.add_machine(1, memory_mib=2048, disk_mib=64)
        b.p.add_machine(m)
        capture = b.lab.capture("wire")
        commission(b, m, FULL_LIMIT)
        b.lab.stop("wire")
        results = {r["name"]: r for r in b.p.json("machine", "results", m["name"])}
        check("the probe", results["90-lab-probe"]["status_name"], "Passed")
        logs = b.p.run("machine", "logs", m["name"])
        for line in ("hello over UDP", "hello over TCP"):
            assert line in logs, f"\"{line}\" is not among the machine's logs:\n{logs[-2000:]}"
        partners(capture, m)
        by_name_and_address(capture, m)


def partners(capture, m):
    """Every unicast frame of the machine goes to the rack, or to the router for router discovery."""
    others = set()
    for f in wire.frames(capture):
        if f.source != m["mac"] or int(f.target[:2], 16) & 1:
            continue
        if not f.receiver:
            continue   # ARP and LLDP have no IP addresses
        receiver = ipaddress.ip_address(f.receiver)
        if f.receiver != f"{NET}.1" and not receiver.is_link_local and not f.protocol == "ip6/58":
            others.add((f.protocol, f.receiver, f.dport))
    check("partners beside the rack", others, set())


def by_name_and_address(capture, m):
    """Metadata, packages and syslog go by the internal name; DNS, PXE and NTP by address."""
    asked, hosts, ports = set(), {}, set()
    for f in wire.frames(capture):
        if f.source != m["mac"]:
            continue
        ports.add((f.protocol, f.dport))
        if f.protocol == "ip/udp" and f.dport == 53:
            asked.add(wire.question(f.data))
        if f.protocol == "ip/tcp" and f.dport in (5248, 8000):
            path = re.match(rb"[A-Z]+ (\S+) HTTP/1", f.data)
            host = re.search(rb"\r\n[Hh]ost: ([^\r]+)", f.data)
            if path and host:
                hosts.setdefault(host.group(1).decode(), []).append(path.group(1).decode())
    assert NAME in asked, asked
    boot = [p for host, paths in hosts.items() if host.startswith(f"{NET}.1") for p in paths]
    named = [p for host, paths in hosts.items() if host.startswith(NAME) for p in paths]
    assert any("/MAAS/metadata/" in p for p in named), hosts
    assert not any("/MAAS/metadata/" in p for p in boot), "metadata was asked for by address"
    assert any("squashfs" in p or "/images/" in p for p in boot), hosts
    for want in (("ip/udp", 53), ("ip/udp", 123), ("ip/udp", 5247), ("ip/tcp", 5247), ("ip/tcp", 8000), ("ip/tcp", 5248)):
        assert want in ports, f"nothing was sent to {want}"


def rotation(b, server, count=8):
    """The addresses of the internal name as rack `server` gives them, and which came first."""
    dig = ["ip", "netns", "exec", b.lab.router_ns, "dig", "+short", "+time=1", "+tries=2", f"@{NET}.{server}", NAME, "A"]
    answers = [subprocess.run(dig, capture_output=True, text=True, check=False).stdout.split() for _ in range(count)]
    return {a for answer in answers for a in answer}, {answer[0] for answer in answers if answer}


def last_named(b, server, dead, end):
    """When rack `server` was asked the last time that it named `dead`: five answers without it follow, before `end`."""
    last, without = time.monotonic(), 0
    while without < 5:
        asked = time.monotonic()
        assert asked < end, f"{dead} is still named"
        addresses, _ = rotation(b, server, 1)
        if dead in addresses:
            last, without = asked, 0
        elif addresses:
            without += 1
    return last


def one_of_two_racks_dies(work, image):
    """Two racks, ten machines under way, one rack killed: all Ready, the dead rack out of the name in 10 s, no address given twice."""
    with Bench(work, "two", image["tiny"], taps=10, racks=2) as b:
        both = {f"{NET}.1", f"{NET}.2"}
        b.lab.wait(lambda: rotation(b, 1) == (both, both) and rotation(b, 2) == (both, both), 20, "rotation over both racks")
        capture = b.lab.capture("wire", "udp", "port", "67", "or", "port", "68")
        machines = [b.lab.add_machine(i, memory_mib=512) for i in range(1, 11)]
        for m in machines:
            b.p.add_machine(m)
        for m in machines:
            b.p.run("machine", "commission", m["name"])
        b.lab.wait(lambda: any(wire.acks(capture)), TINY_LIMIT, "first lease")
        b.p.kill("rack1")
        killed = time.monotonic()
        took = last_named(b, 2, f"{NET}.1", killed + 4 * LEAVES_ROTATION_S) - killed
        print(f"    the dead rack was last named {took:.1f} s after its end", flush=True)
        assert took <= LEAVES_ROTATION_S, took
        wait_ready(b, machines, 8 * TINY_LIMIT)
        b.lab.stop("wire")
        check("addresses given twice", wire.twice_leased(capture), [])


def wait_ready(b, machines, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = {m["name"]: b.p.status(m["name"]) for m in machines}
        if all(s == "Ready" for s in states.values()):
            return
        if any(s.startswith("Failed") for s in states.values()):
            break
        time.sleep(1)
    worst = next(m for m in machines if states[m["name"]] != "Ready")
    dump(b, worst)
    raise AssertionError(f"not all are Ready: {states}")


def power_here_boot_there(work, image):
    """The BMCs are reached by rack 2 alone, DHCP is rack 1's alone: steps 3 and 4 by one, 5 to 11 by the other."""
    with Bench(work, "split", image["tiny"], racks=2, bmc_racks=[2]) as b:
        vlan = b.p.json("subnet", "list")[0]["vlan"]
        b.p.api("PUT", f"/MAAS/api/2.0/vlans/{vlan['id']}/", primary_rack=b.p.rack(1)["system_id"], secondary_rack="")
        m = b.lab.add_machine(1, memory_mib=512)
        b.p.add_machine(m)
        explain = commission(b, m, TINY_LIMIT)
        racks = {s["number"]: s["rack"] for s in explain["steps"] if s["rack"]}
        check("the rack of step 4", racks[4], b.p.rack(2)["system_id"])
        check("the rack of step 5", racks[5], b.p.rack(1)["system_id"])


def foreign_dhcp(work, image):
    """A dnsmasq on the wire: ours stands aside; `explain` and `doctor` name it by address and MAC."""
    with Bench(work, "alien", image["tiny"]) as b:
        b.lab.spawn("alien", ["dnsmasq", "-k", "-C", "/dev/null", "-p", "0", "-i", "eth0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative",
                              "-F", f"{NET}.230,{NET}.239,255.255.255.0,2m", f"--dhcp-leasefile={b.lab.work}/alien.leases", "--user=root",
                              f"--pid-file={b.lab.work}/alien.pid"], b.lab.router_ns)
        time.sleep(1)
        b.p.kill("rack1")   # a start looks round before it serves
        b.p.start_rack(1)
        mac = run("ip", "netns", "exec", b.lab.router_ns, "cat", "/sys/class/net/eth0/address").strip()
        m = b.lab.add_machine(1, memory_mib=512)
        b.p.add_machine(m)
        b.p.run("machine", "commission", m["name"])
        named = lambda text: f"{NET}.254" in text and mac in text   # noqa: E731
        b.lab.wait(lambda: named(b.p.run("explain", m["name"], "-o", "json")), 60, "explanation that names the foreign server")
        doctor = b.p.run("doctor", "--config", f"{b.p.dir}/rack1.toml", ns=b.lab.racks[1], check=False)
        assert named(doctor.stdout + doctor.stderr), doctor.stdout + doctor.stderr
        b.p.run("machine", "abort", m["name"])
        b.lab.stop("alien")


def region_away(work, image):
    """The region is dead: names, leases, time and metadata of a machine under orders go on, and it is Ready when the region is back."""
    with Bench(work, "away", image["tiny"]) as b:
        m = b.lab.add_machine(1, memory_mib=512)
        b.p.add_machine(m)
        dead = []

        def watch(step):
            if step >= 5 and not dead:
                b.p.kill("region")
                dead.append(time.monotonic())
                check("the name without a region", rotation(b, 1, 2)[0], {f"{NET}.1"})
                run("ip", "netns", "exec", b.lab.router_ns, "ntpdig", "-t", "3", f"{NET}.1")
                b.lab.wait(lambda: "tiny: done" in b.lab.console(1), TINY_LIMIT, "machine that did its scripts without a region")
                b.p.start_region()

        commission(b, m, 2 * TINY_LIMIT, watch)
        assert dead


TESTS = [from_the_rack, one_of_two_racks_dies, power_here_boot_there, foreign_dhcp, region_away]
