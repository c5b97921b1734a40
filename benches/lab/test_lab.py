#!/usr/bin/env python3
"""The lab's tests: real machines from New to Ready, nothing between BMC and result but the product.

    test_lab.py [--work DIR] [--keep] [TEST…]

The images are built once into WORK/images and used again while the builder is unchanged. The last line counts: "N passed, N failed".
"""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import repository                                                                # noqa: E402
from lab import HERE, NET, Lab, missing_tools                                    # noqa: E402
from product import BINARY, KERNEL_OPTS, Product, current_step, postgres         # noqa: E402

FULL_LIMIT, TINY_LIMIT = 600, 150
# What the test of the rack's services runs inside the machine.
PROBES = ["bind9-dnsutils", "ntpsec-ntpdig"]
TINY_PARAMS = "ip=dhcp cloud-config-url={preseed_url}"


# Images ------------------------------------------------------------------------------------------------------------

def fingerprint(*tops):
    h = hashlib.sha256()
    for top in tops:
        files = [top] if os.path.isfile(top) else sorted(f"{d}/{n}" for d, _, names in os.walk(top) for n in names)
        for name in files:
            with open(name, "rb") as f:
                h.update(f.read())
    return h.hexdigest()


def made(directory, want, make):
    """Makes a directory anew unless it was made from the same sources."""
    mark = f"{directory}.made-from"
    if os.path.exists(mark) and open(mark).read() == want:
        return
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    started = time.monotonic()
    make()
    print(f"  {directory} made in {time.monotonic() - started:.0f} s", flush=True)
    with open(mark, "w") as f:
        f.write(want)


def images(work):
    """The full image, built by the product's own command, and the tiny one made from its kernel."""
    full, tiny = f"{work}/images/full", f"{work}/images/tiny"
    builder = fingerprint(f"{HERE}/../../src/image") + ",".join(PROBES)

    def make_full():
        subprocess.run([BINARY, "image", "build", "--release", "bookworm", "--kernel", "generic", "--include", ",".join(PROBES), "--out", full],
                       check=True)

    def make_tiny():
        subprocess.run([f"{HERE}/tiny.sh", full, tiny], check=True)
        with open(f"{tiny}/image.json", "w") as f:
            json.dump({"name": "lab/tiny/amd64/generic", "arch": "amd64", "kernel": "boot-kernel", "initrd": "boot-initrd",
                       "kernel_params": TINY_PARAMS}, f)

    made(full, builder, make_full)
    made(tiny, builder + fingerprint(f"{HERE}/tiny.sh", f"{HERE}/tiny-init.sh"), make_tiny)
    return {"full": full, "tiny": tiny}


# One lab with the product in it ------------------------------------------------------------------------------------

class Bench:
    def __init__(self, work, name, image, database=None, **lab):
        shutil.rmtree(f"{work}/{name}", ignore_errors=True)
        self.lab = Lab(f"{work}/{name}", f"hx-{name}"[:12], **lab)
        try:
            self.lab.start_router()
            self.lab.start_switch()
            self.p = Product(self.lab, database)
            self.p.start_region()
            self.p.start_racks()
            self.p.add_subnet()
            self.p.run("setting", "set", "kernel_opts", KERNEL_OPTS)
            self.p.run("image", "loaders", timeout=300)
            self.p.run("image", "add", image, "--default", timeout=300)
        except BaseException:
            self.lab.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lab.close()


def check(what, seen, expected):
    assert seen == expected, f"{what}: seen {seen!r}, expected {expected!r}"


def check_steps(explain):
    """All twelve have a time, a server, a duration and their evidence."""
    check("steps", [s["number"] for s in explain["steps"]], list(range(1, 13)))
    for s in explain["steps"]:
        assert s["state"] in ("done", "not_used"), s
        assert s["started"] and s["ended"] and s["evidence"], s
        assert s["state"] == "not_used" or s["service"], s
        assert s["duration_ms"] is not None and s["duration_ms"] >= 0, s


def print_steps(explain):
    for s in explain["steps"]:
        print(f"    {s['number']:2} {s['name']:15} {s['state']:8} {s['duration_ms'] or 0:8} ms  {s['service']:9} {s['evidence']}", flush=True)


def check_hardware(b, m):
    """What the database says equals what QEMU was given, field by field."""
    seen = b.p.json("machine", "show", m["name"])
    check("status", seen["status_name"], "Ready")
    check("power_state", seen["power_state"], "off")
    check("cpu_count", seen["cpu_count"], m["cpus"])
    # The kernel keeps a part of the memory for itself before it counts.
    assert 0.9 * m["memory_mib"] <= seen["memory"] <= m["memory_mib"], seen["memory"]
    check("architecture", seen["architecture"], "amd64/generic")
    info = seen["hardware_info"]
    check("system", (info["system_vendor"], info["system_product"], info["system_serial"]), (m["vendor"], m["product"], m["serial"]))
    assert "Nehalem" in info["cpu_model"], info["cpu_model"]
    check("hardware_uuid", seen["hardware_uuid"], m["uuid"])
    disks = seen["physicalblockdevice_set"]
    check("disks", [(d["size"], d["serial"], d["name"]) for d in disks], [(m["disk_bytes"], m["disk_serial"], "vda")])
    nics = seen["interface_set"]
    check("NICs", [n["mac_address"] for n in nics], [m["mac"]])
    check("boot NIC", seen["boot_interface"]["mac_address"], m["mac"])
    neighbours = [n for nic in nics for n in nic["neighbours"]]
    check("LLDP", [(n["chassis_name"], n["port_description"]) for n in neighbours], [("lab-switch", m["tap"])])
    results = b.p.json("machine", "results", m["name"])
    assert results and all(r["status_name"] == "Passed" for r in results), results


def dump(b, m):
    """What a person would look at after a failure."""
    for name in ("region", *(f"rack{n}" for n in b.lab.racks)):
        path = f"{b.lab.work}/{name}.log"
        if os.path.exists(path):
            print(f"--- {name}.log\n{open(path, errors='replace').read()[-4000:]}")
    for i in b.lab.machines:
        print(f"--- console {i}\n{b.lab.console(i)[-3000:]}")
    print(b.p.run("explain", m["name"], "-o", "table", check=False).stdout)


def commission(b, m, limit, watch=None):
    started = time.monotonic()
    try:
        explain = b.p.commission(m["name"], limit, watch)
        check("status", b.p.status(m["name"]), "Ready")
        check_steps(explain)
        check("the BMC says on", b.lab.power(int(m["name"][1:])), False)
        check("current step", current_step(explain), 13)
    except BaseException:
        dump(b, m)
        raise
    print(f"    {m['name']} Ready in {time.monotonic() - started:.1f} s", flush=True)
    return explain


# Tests -------------------------------------------------------------------------------------------------------------

def full_bios_ipxe(work, image):
    """The full image by BIOS and iPXE on SQLite: twelve steps, all hardware, off at the end. A stranger gets no answer."""
    with Bench(work, "full", image["full"]) as b:
        m = b.lab.add_machine(1, memory_mib=2048, disk_mib=64)
        b.p.add_machine(m)
        stranger(b)
        print_steps(commission(b, m, FULL_LIMIT))
        check_hardware(b, m)


def stranger(b):
    """A client that nobody knows asks from the router's namespace."""
    done = subprocess.run(["ip", "netns", "exec", b.lab.router_ns, "busybox", "udhcpc", "-q", "-n", "-t", "3", "-T", "1", "-i", "eth0",
                           "-s", "/bin/true"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "lease of" not in done.stderr + done.stdout, done


def full_postgres(work, image):
    """The same on PostgreSQL."""
    url, stop = postgres(f"{work}/full-pg")
    try:
        with Bench(work, "pg", image["full"], url) as b:
            m = b.lab.add_machine(1, memory_mib=2048, disk_mib=64)
            b.p.add_machine(m)
            commission(b, m, FULL_LIMIT)
            check_hardware(b, m)
    finally:
        stop()


def killed(work, image):
    """The region is killed between steps 5 and 11, the rack between 8 and 10; the machine still ends Ready."""
    with Bench(work, "kill", image["full"]) as b:
        m = b.lab.add_machine(1, memory_mib=2048, disk_mib=64)
        b.p.add_machine(m)
        done = set()

        def watch(step):
            # Steps 6 to 8 take a tenth of a second by iPXE, so the first look may find a later one.
            if 5 <= step <= 10 and "region" not in done:
                done.add("region")
                b.p.kill("region")
                b.p.start_region()
            elif 9 <= step <= 10 and "rack" not in done:
                done.add("rack")
                b.p.kill("rack1")
                b.p.start_rack()

        commission(b, m, FULL_LIMIT, watch)
        check("killed", done, {"region", "rack"})
        check_hardware(b, m)


def packages(work, image):
    """Two machines of the full image install a package with apt-get through the rack's proxy; its server is asked for it once."""
    with Bench(work, "pkg", image["full"], taps=2) as b:
        served = repository.serve(b.lab)
        script = f"{b.lab.work}/lab-packages"
        with open(script, "w") as f:
            f.write(repository.SCRIPT)
        b.p.run("script", "add", script)
        for i in (1, 2):
            m = b.lab.add_machine(i, memory_mib=2048)
            b.p.add_machine(m)
            commission(b, m, FULL_LIMIT)
            said = b.p.run("machine", "results", m["name"], "--script", "lab-packages", "-o", "json")
            assert repository.GREETING in said, said
        with open(served) as f:
            log = f.read()
        check("the package was fetched once", log.count(f"{repository.PACKAGE}_1.0_all.deb"), 1)


def tiny_ten(work, image):
    """The tiny image ten times in a row on one machine."""
    with Bench(work, "tiny", image["tiny"]) as b:
        m = b.lab.add_machine(1, memory_mib=512)
        b.p.add_machine(m)
        for _ in range(10):
            commission(b, m, TINY_LIMIT)


def secure_boot(work, image):
    """OVMF with Secure Boot, Debian's signed shim and GRUB over TFTP, the tiny image."""
    with Bench(work, "sb", image["tiny"]) as b:
        m = b.lab.add_machine(1, firmware="secure-boot", memory_mib=1024)
        b.p.add_machine(m)
        explain = commission(b, m, TINY_LIMIT)
        print_steps(explain)
        loader = explain["steps"][5]
        check("loader", (loader["state"], loader["service"]), ("done", "tftp"))
        check("bios_boot_method", b.p.json("machine", "show", m["name"])["bios_boot_method"], "uefi")


TESTS = [full_bios_ipxe, packages, tiny_ten, secure_boot, killed, full_postgres]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default=os.environ.get("HOSTLER_LAB", "/var/tmp/hostler-lab"))
    parser.add_argument("tests", nargs="*")
    arguments = parser.parse_args()
    missing = missing_tools()
    if missing:
        sys.exit(f"the lab needs: apt-get install --no-install-recommends {' '.join(missing)}")
    os.makedirs(arguments.work, exist_ok=True)
    image, passed, failed = images(arguments.work), 0, 0
    for test in TESTS:
        if arguments.tests and test.__name__ not in arguments.tests:
            continue
        print(f"lab {test.__name__}: {test.__doc__.splitlines()[0]}", flush=True)
        started = time.monotonic()
        try:
            test(arguments.work, image)
            passed += 1
            print(f"  ok in {time.monotonic() - started:.0f} s", flush=True)
        except Exception:   # noqa: BLE001 - the next test still tells something
            failed += 1
            traceback.print_exc()
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
