"""A lab of real parts in network namespaces: a wire (bridges for machines, BMCs and management; BMCs by ipmi_sim, machines by QEMU,
see chassis.py, a switch that speaks LLDP), racks with a leg on each, a region, and a router that sends router advertisements.

    machines' wire 10.77.0.0/24   rack n .n, router .254        Only racks are on it: what a machine needs it gets from them.
    BMCs' wire     10.78.0.0/24   BMC i .i, rack n .250+n
    management     10.76.0.0/24   region .10, rack n .n

Nothing leaves the namespaces. `Lab.close` ends what the lab started, by pid, and removes the namespaces. Their names are another run's
never: a lab that was killed is swept away by the next one, and is not in its way until then.
"""
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
NET, BMC_NET, MGMT_NET = "10.77.0", "10.78.0", "10.76.0"
REGION = f"{MGMT_NET}.10"
FIRMWARE = {
    "bios": {"machine": "pc,graphics=off,hpet=off"},
    "uefi": {"machine": "pc,graphics=off,hpet=off", "ovmf_code": "/usr/share/OVMF/OVMF_CODE_4M.fd",
             "ovmf_vars": "/usr/share/OVMF/OVMF_VARS_4M.fd"},
    # The network by HTTP alone, since OVMF tries PXE first.
    "http-boot": {"machine": "pc,graphics=off,hpet=off", "ovmf_code": "/usr/share/OVMF/OVMF_CODE_4M.fd",
                  "ovmf_vars": "/usr/share/OVMF/OVMF_VARS_4M.fd",
                  "extra": ["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no"]},
    # Microsoft's keys enrolled, Secure Boot on: only signed loaders run.
    "secure-boot": {"machine": "q35,smm=on,graphics=off,hpet=off", "ovmf_code": "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
                    "ovmf_vars": "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
                    "extra": ["-global", "driver=cfi.pflash01,property=secure,value=on"]},
}
USER, PASSWORD = "maas", "lab-Pass.9#"
# A file for each lab, named as it and locked for as long as its run lives.
LABS = "/run/hostler-labs"


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, capture_output=True, **options).stdout


def locked(path):
    """The file, opened and locked; None while its run lives."""
    file = open(path, "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def remove(namespace):
    """Ends what runs in a namespace of a lab, and removes it."""
    inside = subprocess.run(["ip", "netns", "pids", namespace], text=True, capture_output=True, check=False).stdout
    for pid in inside.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass   # It ended by itself.
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def sweep():
    """Removes the labs of runs that were killed before they could do it."""
    os.makedirs(LABS, exist_ok=True)
    there = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]
    for name in os.listdir(LABS):
        file = locked(f"{LABS}/{name}")
        if file:
            for namespace in there:
                if namespace.startswith(f"{name}-"):
                    remove(namespace)
            os.unlink(f"{LABS}/{name}")
            file.close()


class Lab:
    """One lab. `name` begins its namespaces, so that several can live side by side. `bmc_racks`: those with a leg among the BMCs."""

    def __init__(self, work, name="hx-lab", taps=4, racks=1, bmc_racks=None):
        name = f"{name}-{os.getpid()}"
        self.work, self.name, self.processes, self.machines = os.path.abspath(work), name, {}, {}
        os.makedirs(self.work, exist_ok=True)
        sweep()
        self.lock = locked(f"{LABS}/{name}")
        self.wire_ns, self.region_ns, self.router_ns = f"{name}-wire", f"{name}-region", f"{name}-router"
        self.racks = {n: f"{name}-rack{n}" for n in range(1, racks + 1)}
        self.namespaces = [self.wire_ns, self.region_ns, self.router_ns, *self.racks.values()]
        self._network(taps, self.racks if bmc_racks is None else bmc_racks)

    # Network -----------------------------------------------------------------------------------------------------

    def _network(self, taps, bmc_racks):
        for ns in self.namespaces:
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
        wire = ["ip", "-n", self.wire_ns]
        for bridge in ("br0", "bmc0", "mgmt0"):
            run(*wire, "link", "add", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
            run(*wire, "link", "set", bridge, "up")
        for i in range(1, taps + 1):
            run(*wire, "tuntap", "add", f"tap{i}", "mode", "tap")
            run(*wire, "link", "set", f"tap{i}", "master", "br0", "up")
            run(*wire, "addr", "add", f"{BMC_NET}.{i}/24", "dev", "bmc0")
        for n, ns in self.racks.items():
            self.leg("br0", ns, f"{NET}.{n}")
            self.leg("mgmt0", ns, f"{MGMT_NET}.{n}", "mgmt")
            if n in bmc_racks:
                self.leg("bmc0", ns, f"{BMC_NET}.{250 + n}", "bmc")
        self.leg("mgmt0", self.region_ns, REGION, "mgmt")
        self.leg("br0", self.router_ns, f"{NET}.254")
        run("ip", "-n", self.router_ns, "-6", "addr", "add", "fd77::1/64", "dev", "eth0", "nodad")

    def leg(self, bridge, ns, address, link="eth0"):
        """A cable from a bridge of the wire to a namespace, with that address there."""
        port = f"{bridge}-{self.namespaces.index(ns)}"
        run("ip", "-n", self.wire_ns, "link", "add", port, "type", "veth", "peer", "name", link, "netns", ns)
        run("ip", "-n", self.wire_ns, "link", "set", port, "master", bridge, "up")
        run("ip", "-n", ns, "addr", "add", f"{address}/24", "dev", link)
        run("ip", "-n", ns, "link", "set", link, "up")

    def capture(self, name, *expression):
        """tcpdump on the machines' wire into WORK/NAME.pcap, until it is stopped by that name."""
        path = f"{self.work}/{name}.pcap"
        self.spawn(name, ["tcpdump", "-i", "br0", "-n", "-U", "-s", "0", "-B", "65536", "-w", path, *expression], self.wire_ns)
        self.wait(lambda: os.path.exists(path), 10, f"capture {name}")
        return path

    def start_router(self):
        """Router advertisements: without them every iPXE boot waits 13 s for a router that never speaks."""
        conf = f"{self.work}/radvd.conf"
        with open(conf, "w") as f:
            f.write("interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 5; prefix fd77::/64 { }; };\n")
        self.spawn("radvd", ["radvd", "-n", "-C", conf, "-p", f"{self.work}/radvd.pid", "-m", "stderr"], self.router_ns)

    def start_switch(self, chassis="lab-switch"):
        """lldpd on the bridge's side of every cable, announcing every 2 s."""
        socket = f"{self.work}/lldpd.socket"
        self.spawn("lldpd", ["lldpd", "-d", "-u", socket, "-I", "tap*", "-C", "br0", "-S", "lab switch"], self.wire_ns)
        self.wait(lambda: os.path.exists(socket), 10, "lldpd's socket")
        for line in (["configure", "lldp", "tx-interval", "2"], ["configure", "system", "hostname", chassis]):
            run("ip", "netns", "exec", self.wire_ns, "lldpcli", "-u", socket, *line)

    # Processes ---------------------------------------------------------------------------------------------------

    def spawn(self, name, command, namespace, env=None, log=None):
        """Starts a program in a namespace, its output in WORK/NAME.log, and remembers it by pid."""
        out = open(log or f"{self.work}/{name}.log", "ab")
        full = ["ip", "netns", "exec", namespace, *command]
        process = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                                   env={**os.environ, **(env or {})})
        self.processes[name] = process
        return process

    def stop(self, name, sign=signal.SIGTERM):
        process = self.processes.pop(name, None)
        if process and process.poll() is None:
            os.kill(process.pid, sign)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait(self, ready, seconds, what):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = ready()
            if value:
                return value
            time.sleep(0.1)
        raise TimeoutError(f"no {what} within {seconds} s")

    # Machines ----------------------------------------------------------------------------------------------------

    def add_machine(self, i, firmware="bios", memory_mib=2048, disk_mib=0, nic="virtio-net-pci", cpus=1, **more):
        """Machine i: QEMU on tap i, its BMC at 10.78.0.i:623. It stays off until its BMC switches it on."""
        directory = f"{self.work}/machine{i}"
        os.makedirs(f"{directory}/state", exist_ok=True)
        uuid = f"6e6f7473-6572-4000-8000-0000000000{i:02x}"
        m = {"name": f"m{i}", "mac": f"52:54:00:77:00:{i:02x}", "uuid": uuid, "firmware": firmware, "memory_mib": memory_mib,
             "cpus": cpus, "cpu": "Nehalem", "nic": nic, "tap": f"tap{i}", "vendor": "LabCo", "product": f"Lab-{firmware}",
             "serial": f"LAB{i:04d}", "bmc": f"{BMC_NET}.{i}", "directory": directory, **FIRMWARE[firmware], **more}
        if disk_mib:
            m.update(disk=f"{directory}/disk.img", disk_serial=f"DISK{i:04d}", disk_bytes=disk_mib << 20)
            with open(m["disk"], "wb") as f:
                f.truncate(m["disk_bytes"])
        with open(f"{directory}/machine.json", "w") as f:
            json.dump(m, f)
        self.machines[i] = m
        self._start_bmc(i, m)
        return m

    def _start_bmc(self, i, m):
        d = m["directory"]
        levels = "\n".join(f"    allowed_auths_{who} none md2 md5 straight" for who in ("callback", "user", "operator", "admin"))
        with open(f"{d}/lan.conf", "w") as f:
            f.write(f"""name "m{i}"
set_working_mc 0x20
  startlan 1
    addr {m['bmc']} 623
    priv_limit admin
{levels}
    guid a123456789abcdefa1234567000000{i:02x}
  endlan
  chassis_control "{sys.executable} {HERE}/chassis.py {d}"
  user 1 true "" "" user 10 none md2 md5 straight
  user 2 true "{USER}" "{PASSWORD}" admin 10 none md2 md5 straight
""")
        with open(f"{d}/bmc.emu", "w") as f:
            f.write("mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n"
                    "sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n")
        name = f"bmc{i}"
        self.spawn(name, ["ipmi_sim", "-n", "-c", f"{d}/lan.conf", "-f", f"{d}/bmc.emu", "-s", f"{d}/state"], self.wire_ns)
        time.sleep(0.3)
        assert self.processes[name].poll() is None, f"the BMC of machine {i} died: see {self.work}/{name}.log"

    def power(self, i):
        """What the BMC says, asked as an operator would: True for on."""
        m = self.machines[i]
        out = run("ip", "netns", "exec", self.wire_ns, "ipmitool", "-I", "lanplus", "-C", "3", "-H", m["bmc"], "-U", USER, "-E",
                  "chassis", "power", "status", env={**os.environ, "IPMI_PASSWORD": PASSWORD})
        return "is on" in out

    def console(self, i):
        try:
            with open(f"{self.machines[i]['directory']}/console.log", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    # The end -----------------------------------------------------------------------------------------------------

    def close(self):
        for m in self.machines.values():
            subprocess.run([sys.executable, f"{HERE}/chassis.py", m["directory"], "set", "power", "0"], check=False)
        for name in list(self.processes):
            self.stop(name)
        for ns in self.namespaces:
            subprocess.run(["ip", "netns", "del", ns], check=False)
        os.unlink(self.lock.name)
        self.lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


MISSING = {"qemu-system-x86_64": "qemu-system-x86", "ipmi_sim": "openipmi", "ipmitool": "ipmitool", "radvd": "radvd",
           "lldpd": "lldpd", "ip": "iproute2", "mmdebstrap": "mmdebstrap", "mksquashfs": "squashfs-tools", "apt-ftparchive": "apt-utils"}


def missing_tools():
    """The Debian packages of the programs that the lab needs and this machine has not."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted({package for tool, package in MISSING.items() if not shutil.which(tool, path=path)})
