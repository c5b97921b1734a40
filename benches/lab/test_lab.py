#!/usr/bin/env python3
"""The lab's tests: real machines from New to Ready, nothing between BMC and result but the product.

    test_lab.py [--work DIR] [TEST…]

The images are built once into WORK/images and used again while the builder is unchanged. The last line counts: "N passed, N failed".
"""
import argparse
import os
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import services                                                                      # noqa: E402
from bench import FULL_LIMIT, TINY_LIMIT, Bench, check, check_hardware, commission, images, print_steps   # noqa: E402
from imitation import bytes_match                                                    # noqa: E402
from lab import missing_tools                                                        # noqa: E402
from product import postgres                                                         # noqa: E402


# Tests -------------------------------------------------------------------------------------------------------------

def full_bios_ipxe(work, image):
    """The full image by BIOS and iPXE on SQLite: twelve steps, all hardware, off at the end. A stranger gets no answer."""
    with Bench(work, "full", image["full"]) as b:
        m = b.lab.add_machine(1, memory_mib=2048, disk_mib=64)
        b.p.add_machine(m)
        stranger(b)
        capture = b.lab.capture("wire")
        print_steps(commission(b, m, FULL_LIMIT))
        b.lab.stop("wire")
        check_hardware(b, m)
        bytes_match(capture, m, "ipxe-rom")


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
        capture = b.lab.capture("wire")
        explain = commission(b, m, TINY_LIMIT)
        b.lab.stop("wire")
        print_steps(explain)
        loader = explain["steps"][5]
        check("loader", (loader["state"], loader["service"]), ("done", "tftp"))
        check("bios_boot_method", b.p.json("machine", "show", m["name"])["bios_boot_method"], "uefi")
        bytes_match(capture, m, "uefi-tftp", "loaders")


def http_boot(work, image):
    """OVMF's HTTP boot of iPXE, the tiny image."""
    with Bench(work, "http", image["tiny"]) as b:
        m = b.lab.add_machine(1, firmware="http-boot", memory_mib=1024)
        b.p.add_machine(m)
        capture = b.lab.capture("wire")
        explain = commission(b, m, TINY_LIMIT)
        b.lab.stop("wire")
        loader = explain["steps"][5]
        check("loader", (loader["state"], loader["service"]), ("done", "http"))
        check("its name", loader["evidence"].split()[0], "snponly.efi")
        bytes_match(capture, m, "uefi-http", "loaders")


TESTS = [full_bios_ipxe, tiny_ten, secure_boot, http_boot, killed, full_postgres, *services.TESTS]


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
