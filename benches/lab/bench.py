"""What the lab's tests share: images made once, a lab with the product in it, and the checks of one commissioning."""
import hashlib
import json
import os
import shutil
import subprocess
import time

from lab import HERE, Lab
from product import BINARY, KERNEL_OPTS, Product, current_step

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
    for result in json.loads(b.p.run("machine", "results", m["name"], "-o", "json", check=False).stdout or "[]"):
        if result["status_name"] not in ("Passed", "Skipped"):
            print(f"--- {result['name']}: {result['status_name']}\n{str(result)[-3000:]}")


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
