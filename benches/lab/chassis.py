#!/usr/bin/env python3
"""The chassis of a lab machine: what ipmi_sim calls for power, reset and boot device, and the QEMU process behind it.

    chassis.py DIR get power | get boot | set power 0|1 | set reset 1 | set boot pxe|… | set shutdown 1

DIR holds machine.json (see lab.py), and while the machine is on qemu.pid and console.log (each line with the seconds since power on).
QEMU runs under TCG in the network namespace of the caller. The boot device that a BMC sets holds for one boot.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time


def pid_of(directory):
    """The pid of the machine's QEMU, or 0. A reused pid is not ours: its command line must name this directory."""
    try:
        with open(f"{directory}/qemu.pid") as f:
            pid = int(f.read())
        with open(f"/proc/{pid}/cmdline") as f:
            return pid if directory in f.read() else 0
    except (OSError, ValueError):
        return 0


def boot_device(directory):
    try:
        with open(f"{directory}/boot") as f:
            return f.read().strip()
    except OSError:
        return "none"


def qemu_command(directory, m):
    network_first = boot_device(directory) == "pxe"
    # A machine of a site has a processor of its own and takes none from its rack: here it yields.
    cmd = ["nice", "-n", "10", "qemu-system-x86_64", "-name", m["name"], "-machine", m["machine"], "-accel", "tcg,thread=multi,tb-size=256",
           "-cpu", m["cpu"], "-smp", str(m["cpus"]), "-m", str(m["memory_mib"]), "-uuid", m["uuid"],
           "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-rtc", "base=utc",
           "-smbios", f"type=1,manufacturer={m['vendor']},product={m['product']},serial={m['serial']},uuid={m['uuid']}",
           "-qmp", f"unix:{directory}/qmp.sock,server=on,wait=off",
           "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng0",
           "-netdev", f"tap,id=net0,ifname={m['tap']},script=no,downscript=no,vhost=off"]
    rom = ",romfile=" if m["firmware"] != "bios" else ""   # without the ROM OVMF boots by its own PXE, not by iPXE
    cmd += ["-device", f"{m['nic']},netdev=net0,mac={m['mac']},bootindex={1 if network_first else 2}{rom}"]
    if m["firmware"] == "bios":
        cmd += ["-boot", "n" if network_first else "c"]
    else:
        shutil.copy(m["ovmf_vars"], f"{directory}/vars.fd")   # fresh at every power on, so that the boot order cannot drift
        cmd += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={m['ovmf_code']}",
                "-drive", f"if=pflash,unit=1,format=raw,file={directory}/vars.fd",
                "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=no"]
        if m["firmware"] == "uefi-http":
            cmd += ["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no"]
    if m.get("disk"):
        cmd += ["-drive", f"if=none,id=disk0,format=raw,file={m['disk']}",
                "-device", f"virtio-blk-pci,drive=disk0,serial={m['disk_serial']},bootindex={2 if network_first else 1}"]
    return cmd + m.get("extra", [])


def switch_on(directory):
    if pid_of(directory):
        return
    with open(f"{directory}/machine.json") as f:
        machine = json.load(f)
    command = qemu_command(directory, machine)
    try:
        os.unlink(f"{directory}/boot")
    except FileNotFoundError:
        pass
    if os.fork():   # the BMC gets its answer as soon as QEMU runs
        for _ in range(100):
            if pid_of(directory):
                return
            time.sleep(0.05)
        sys.exit(1)
    os.setsid()
    os.closerange(3, 256)   # the BMC's sockets are not ours to hold
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    watch(directory, command)
    os._exit(0)


def watch(directory, command):
    """Runs QEMU to its end and keeps what it prints, stamped."""
    start = time.monotonic()
    with open(f"{directory}/console.log", "a", buffering=1, errors="replace") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with open(f"{directory}/qemu.pid", "w") as f:
            f.write(str(process.pid))
        log.write(f"   0.00 POWER ON {' '.join(command)}\n")
        for line in process.stdout:
            log.write(f"{time.monotonic() - start:7.2f} {line.decode('utf8', 'replace').rstrip()}\n")
        _, status, usage = os.wait4(process.pid, 0)
        log.write(f"{time.monotonic() - start:7.2f} POWER OFF status={status} cpu_s={usage.ru_utime + usage.ru_stime:.1f} "
                  f"rss_mib={usage.ru_maxrss // 1024}\n")
    os.unlink(f"{directory}/qemu.pid")


def switch_off(directory):
    pid = pid_of(directory)
    if not pid:
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        if not pid_of(directory):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


def qmp(directory, command):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(f"{directory}/qmp.sock")
        stream = s.makefile("rw")
        stream.readline()
        for execute in ("qmp_capabilities", command):
            stream.write(json.dumps({"execute": execute}) + "\n")
            stream.flush()
            stream.readline()


def main(directory, verb, *pairs):
    with open(f"{directory}/chassis.log", "a") as log:
        log.write(f"{time.strftime('%H:%M:%S')} {verb} {' '.join(pairs)}\n")
    words = list(pairs)
    while words:
        what = words.pop(0)
        if verb == "get" and what == "power":
            print(f"power:{1 if pid_of(directory) else 0}")
        elif verb == "get" and what == "boot":
            print(f"boot:{boot_device(directory)}")
        elif verb == "set":
            value = words.pop(0)
            if what == "power":
                (switch_on if value == "1" else switch_off)(directory)
            elif what == "reset" and pid_of(directory):
                qmp(directory, "system_reset")
            elif what == "shutdown" and pid_of(directory):
                qmp(directory, "system_powerdown")
            elif what == "boot":
                with open(f"{directory}/boot", "w") as f:
                    f.write(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
