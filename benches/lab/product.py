"""The product in the lab: region and rack from the built binary, driven by the operator's commands alone."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request

from lab import HERE, NET, PASSWORD, REGION, USER

BINARY = os.environ.get("HOSTLER_BINARY") or os.path.abspath(f"{HERE}/../../target/debug/hostler")
API = "127.0.0.1:5240"
KERNEL_OPTS = "console=ttyS0,115200 quiet mitigations=off systemd.show_status=false no_timer_check panic=30"


class Failed(Exception):
    """A command that ended badly, with what it said."""


class Product:
    """The region in its namespace, a rack in each of the racks', all with directories of their own."""

    def __init__(self, lab, database=None):
        self.lab = lab
        self.dir = f"{lab.work}/product"
        os.makedirs(self.dir, exist_ok=True)
        self.region_toml = f"{self.dir}/region.toml"
        self.env = {**os.environ, "XDG_CONFIG_HOME": f"{self.dir}/config", "HOSTLER_OUTPUT": "json"}
        self._init(database)

    # Commands ----------------------------------------------------------------------------------------------------

    def run(self, *words, env=None, check=True, timeout=120, ns=None):
        """Runs `hostler WORDS` where the region is; its standard output."""
        done = subprocess.run(["ip", "netns", "exec", ns or self.lab.region_ns, BINARY, *words], text=True, capture_output=True, timeout=timeout,
                              env={**self.env, **(env or {})}, stdin=subprocess.DEVNULL, check=False)
        if check and done.returncode != 0:
            raise Failed(f"hostler {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout if check else done

    def json(self, *words, **options):
        return json.loads(self.run(*words, "-o", "json", **options))

    # Life --------------------------------------------------------------------------------------------------------

    def _init(self, database):
        more = ["--database", database] if database else []
        told = self.json("init", "--config", self.region_toml, "--data-dir", f"{self.dir}/region",
                         "--region-address", f"{REGION}:5250", *more)
        self.key = told["api_key"]
        self.env.update(HOSTLER_KEY=self.key, HOSTLER_URL=f"http://{API}/MAAS/")

    def start_region(self):
        ready = f"{self.dir}/region.ready"
        if os.path.exists(ready):
            os.unlink(ready)
        self.lab.spawn("region", [BINARY, "region", "--config", self.region_toml, "--ready-file", ready], self.lab.region_ns)
        self.lab.wait(lambda: os.path.exists(ready) or self._died("region"), 30, "ready region")

    def start_racks(self):
        """All racks of the lab, one after the other, so that the first is the first to connect."""
        for n in self.lab.racks:
            self.start_rack(n)

    def start_rack(self, n=1):
        """Rack n, enrolled at its first start; waits until it is connected."""
        state, config, ns = f"{self.dir}/rack{n}", f"{self.dir}/rack{n}.toml", self.lab.racks[n]
        if not os.path.exists(config):
            with open(config, "w") as f:
                f.write(f'[rack]\nstate = "{state}"\n[region]\naddresses = ["{REGION}:5250"]\n')
            token = self.json("rack", "token")["token"]
            self.run("rack", "enrol", "--config", config, "--region", f"{REGION}:5250", "--token", token, "--name", f"rack{n}", ns=ns)
        self.lab.spawn(f"rack{n}", [BINARY, "rack", "--config", config], ns)
        self.lab.wait(lambda: self.rack_connected(n), 30, f"connected rack {n}")

    def rack(self, n):
        """What the API says of rack n; found by its name."""
        return next((r for r in self.get("/MAAS/api/2.0/rackcontrollers/") if r["hostname"] == f"rack{n}"), {})

    def rack_connected(self, n=1):
        self._died(f"rack{n}")
        return self.rack(n).get("connected")

    def _died(self, name):
        process = self.lab.processes.get(name)
        if process and process.poll() is not None:
            with open(f"{self.lab.work}/{name}.log", errors="replace") as f:
                raise Failed(f"{name} ended with {process.returncode}:\n{f.read()[-3000:]}")

    def kill(self, name):
        """kill -9, as a power cut would."""
        self.lab.stop(name, signal.SIGKILL)

    # The API, where a command would print less --------------------------------------------------------------------

    def get(self, path):
        """GET with the operator's key, from inside the namespace."""
        return self.api("GET", path)

    def api(self, verb, path, **form):
        """A request with the operator's key; what came back as JSON."""
        key, token, secret = self.key.split(":")
        auth = (f'OAuth oauth_version="1.0", oauth_signature_method="PLAINTEXT", oauth_consumer_key="{key}", oauth_token="{token}", '
                f'oauth_signature="%26{secret}", oauth_nonce="{time.monotonic_ns()}", oauth_timestamp="{int(time.time())}"')
        fields = [word for name, value in form.items() for word in ("--data-urlencode", f"{name}={value}")]
        out = subprocess.run(["ip", "netns", "exec", self.lab.region_ns, "curl", "-sS", "--fail-with-body", "-m", "20", "-X", verb,
                              "-H", f"Authorization: {auth}", *fields, f"http://{API}{path}"], capture_output=True, text=True, check=False)
        if out.returncode != 0:
            raise Failed(f"{verb} {path}: {out.stdout}{out.stderr}")
        return json.loads(out.stdout)

    # What an operator does ----------------------------------------------------------------------------------------

    def add_subnet(self):
        return self.json("subnet", "add", f"{NET}.0/24", "--gateway", f"{NET}.254", "--dynamic", f"{NET}.50-{NET}.199")

    def add_machine(self, m):
        return self.json("machine", "add", m["name"], "--mac", m["mac"], "--power-type", "ipmi", "--power-address", m["bmc"],
                         "--power-user", USER, env={"HOSTLER_POWER_PASS": PASSWORD})

    def status(self, name):
        return self.json("machine", "show", name)["status_name"]

    def commission(self, name, limit, watch=None):
        """Commissions and waits; `watch(step)` is called with each step's number when it begins. The explanation at the end."""
        self.run("machine", "commission", name)
        end, told = time.monotonic() + limit, 0
        while time.monotonic() < end:
            time.sleep(0.3)
            try:
                explain = self.json("explain", name, timeout=20)
            except (Failed, subprocess.TimeoutExpired):
                continue   # the region is being killed and started
            number = current_step(explain)
            if number != told:
                told = number
                if watch:
                    watch(number)
            if self.status(name) != "Commissioning":
                break
        return self.json("explain", name)


def current_step(explain):
    """The number of the first step that is not over; 13 when all are."""
    for step in explain["steps"]:
        if step["state"] in ("pending", "running"):
            return step["number"]
    return 13


def postgres(work):
    """A private PostgreSQL cluster on a unix socket, new each time, run by the unprivileged user that Debian made for it."""
    directory = f"{work}/pg"
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    subprocess.run(["chown", "postgres", directory], check=True)
    binaries = max((f"/usr/lib/postgresql/{v}/bin" for v in os.listdir("/usr/lib/postgresql")), key=lambda p: float(re.findall(r"/(\d+)/", p)[0]))
    as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    subprocess.run([*as_user, f"{binaries}/initdb", "-D", f"{directory}/data", "-A", "trust", "-U", "hostler"],
                   check=True, capture_output=True, cwd=directory)
    subprocess.run([*as_user, f"{binaries}/pg_ctl", "-D", f"{directory}/data", "-w", "-l", f"{directory}/log",
                    "-o", f"-k {directory} -c listen_addresses=''", "start"], check=True, capture_output=True, cwd=directory)
    subprocess.run([*as_user, f"{binaries}/createdb", "-h", directory, "-U", "hostler", "hostler"], check=True, cwd=directory)

    def stop():
        subprocess.run([*as_user, f"{binaries}/pg_ctl", "-D", f"{directory}/data", "-m", "immediate", "stop"],
                       check=False, capture_output=True, cwd=directory)
    return f"postgres://hostler@localhost/hostler?host={directory}", stop
