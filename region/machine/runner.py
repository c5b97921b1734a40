#!/usr/bin/python3
"""Runs a machine's commissioning and testing scripts and tells the rack how they went.

This file is the user-data that cloud-init runs. It needs Python 3.9 or newer and its standard library.
The contract with scripts (header, order, time-outs, environment, result file) and with the
metadata service (tar, index.json 1.0, signals) is MAAS's, version 1.0.
"""
import argparse
import email.utils
import glob
import io
import json
import os
import re
import secrets
import selectors
import shutil
import signal as signals
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

VERSION = "2012-03-01"
CONFIGS = "/etc/cloud/cloud.cfg.d/*cmdline*.cfg"
# Seconds before each further try of a request.
PAUSES = (1, 1, 2, 4, 8, 16, 32)
# Kept of each output file in bytes: as it comes, and as it is sent.
RAW_LIMIT = 8 << 20
SENT_LIMIT = 1 << 20
# CPU, memory, storage, network, then the machine as a whole.
HARDWARE_ORDER = {1: 0, 2: 1, 3: 2, 4: 3, 0: 4}
TIMED_OUT = 124


def say(text):
    """A line for cloud-init's log and the console."""
    print("hostler-runner: " + text, flush=True)


class Failure(Exception):
    """Something that ends the run, as a text for the operator."""


# --- Talking to the metadata service


def read_credentials(paths):
    """Metadata URL and key from the cloud-config that the kernel command line named."""
    wanted = ("metadata_url", "consumer_key", "token_key", "token_secret")
    for path in paths:
        found, inside = {}, False
        with open(path, encoding="utf-8", errors="replace") as config:
            for line in config:
                # Top-level keys and "  MAAS:" open and close the block; the keys stand below it.
                if re.match(r"\S", line):
                    inside = False
                elif line.strip() == "MAAS:":
                    inside = True
                match = re.match(r"\s+(\w+):\s*(.+?)\s*$", line)
                if inside and match and match[1] in wanted:
                    value = match[2]
                    found[match[1]] = json.loads(value) if value.startswith('"') else value.strip("'")
        if len(found) == len(wanted):
            return found
    raise Failure("no MAAS datasource with url and keys in %s" % (", ".join(paths) or CONFIGS))


class Service:
    """Signed requests with retries. Corrects its clock by the server's Date."""

    def __init__(self, credentials, pauses=PAUSES):
        self.base = credentials["metadata_url"].rstrip("/") + "/" + VERSION + "/"
        self.key = credentials
        self.pauses = pauses
        self.skew = 0
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def authorization(self):
        fields = {
            "oauth_nonce": secrets.token_hex(16),
            "oauth_timestamp": str(int(time.time()) + self.skew),
            "oauth_version": "1.0",
            "oauth_signature_method": "PLAINTEXT",
            "oauth_consumer_key": self.key["consumer_key"],
            "oauth_token": self.key["token_key"],
            "oauth_signature": "&" + self.key["token_secret"],
        }
        quoted = ('%s="%s"' % (k, urllib.parse.quote(v, safe="")) for k, v in fields.items())
        return "OAuth " + ", ".join(quoted)

    def request(self, path, body=None, content_type=None):
        """(status, bytes) of an answer below 300."""
        pauses, corrected = list(self.pauses), False
        while True:
            headers = {"Authorization": self.authorization()}
            if content_type:
                headers["Content-Type"] = content_type
            wait = 0
            try:
                asked = urllib.request.Request(self.base + path, body, headers)
                with self.opener.open(asked, timeout=60) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                text = error.read(2000).decode(errors="replace").strip()
                why = "%s answered %d: %s" % (path or "signal", error.code, text)
                if error.code in (401, 403) and not corrected and self.correct_clock(error.headers.get("Date")):
                    corrected = True
                    continue
                if error.code < 500 and error.code not in (401, 403, 408, 429):
                    raise Failure(why)
                wait = error.headers.get("Retry-After") or ""
                wait = min(int(wait), 30) if wait.isdigit() else 0
            except (OSError, urllib.error.URLError, ValueError) as error:
                why = "%s failed: %s" % (path or "signal", error)
            if not pauses:
                raise Failure(why)
            pause = pauses.pop(0)
            # The server's wish counts, but never stretches a test's short pauses.
            time.sleep(max(pause, wait) if self.pauses is PAUSES else pause)

    def correct_clock(self, date):
        """Whether the server's clock differs by more than 5 s; then requests are signed by its clock."""
        try:
            skew = int(email.utils.parsedate_to_datetime(date).timestamp() - time.time())
        except (TypeError, ValueError):
            return False
        if abs(skew - self.skew) <= 5:
            return False
        say("the clock is off by %d s; signing by the server's" % -skew)
        self.skew = skew
        return True

    def signal(self, status, error="", script=None, exit_status=None, runtime=None, files=None, extra=None):
        fields = {"op": "signal", "status": status, "error": error}
        if script:
            fields["name"] = script["name"]
            fields["script_result_id"] = script.get("script_result_id")
            fields["script_version_id"] = script.get("script_version_id")
        fields["exit_status"] = exit_status
        fields["runtime"] = runtime
        fields.update(extra or {})
        body, content_type = multipart(fields, files or {})
        self.request("", body, content_type)

    def scripts(self):
        """The tar's bytes, or None when nothing is left."""
        status, body = self.request("maas-scripts")
        return body if status == 200 and body else None


def multipart(fields, files):
    """A form: fields that are not None, then files by name."""
    boundary = secrets.token_hex(20)
    body = io.BytesIO()
    head = '--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
    for name, value in fields.items():
        if value is not None:
            body.write((head % (boundary, name, "")).encode() + str(value).encode() + b"\r\n")
    for name, content in files.items():
        file = '; filename="%s"\r\nContent-Type: application/octet-stream' % name
        body.write((head % (boundary, name, file)).encode() + content + b"\r\n")
    body.write(("--%s--\r\n" % boundary).encode())
    return body.getvalue(), "multipart/form-data; boundary=" + boundary


# --- Output


def emulate_terminal(data):
    """What a terminal shows of it: a backspace steps left, a carriage return goes to the line's start, both overwrite."""
    if b"\b" not in data and b"\r" not in data:
        return data
    lines = []
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        shown, at = bytearray(), 0
        for byte in line:
            if byte == 8:
                at = max(at - 1, 0)
            elif byte == 13:
                at = 0
            else:
                shown[at : at + 1] = bytes((byte,))
                at += 1
        lines.append(bytes(shown))
    return b"\n".join(lines)


def limited(path):
    """The file's content as it is sent; None when there is no file."""
    try:
        with open(path, "rb") as file:
            data = file.read(RAW_LIMIT + 1)
    except OSError:
        return None
    data = emulate_terminal(data)
    if len(data) > SENT_LIMIT:
        note = b"\n# cut here: the output exceeds %d bytes\n" % SENT_LIMIT
        data = data[: SENT_LIMIT - len(note)] + note
    return data


class Recorder:
    """Appends to a file up to a limit."""

    def __init__(self, path):
        self.file = open(path, "wb", buffering=0)
        self.left = RAW_LIMIT + 1

    def write(self, data):
        self.file.write(data[: self.left])
        self.left = max(self.left - len(data), 0)


def run_recorded(command, env, paths, limit_s):
    """Runs a command and records what it prints. Returns its exit status and whether its time ran out.

    A daemon that it leaves behind may keep the pipes: reading ends with the command itself.
    """
    combined, out, err = Recorder(paths["combined"]), Recorder(paths["out"]), Recorder(paths["err"])
    try:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        text = ("could not be run: %s\n" % error).encode()
        combined.write(text)
        err.write(text)
        return error.errno or 2, False
    be_modest(process.pid)
    end = time.monotonic() + limit_s if limit_s else None
    timed_out, ended_at = False, None
    with selectors.DefaultSelector() as selector:
        for pipe, file in ((process.stdout, out), (process.stderr, err)):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, file)
        while True:
            ended = process.poll() is not None
            if ended and ended_at is None:
                ended_at = time.monotonic()
            ready = selector.select(0 if ended else 0.1) if selector.get_map() else []
            for key, _ in ready:
                data = key.fileobj.read(65536)
                if data:
                    combined.write(data)
                    key.data.write(data)
                elif data == b"":
                    selector.unregister(key.fileobj)
            if ended and (not ready or time.monotonic() > ended_at + 1):
                break
            if not selector.get_map() and not ended:
                time.sleep(0.02)
            if end and time.monotonic() > end and not ended:
                timed_out = True
                stop(process)
    process.stdout.close()
    process.stderr.close()
    status = process.returncode
    return (TIMED_OUT, True) if timed_out else (128 - status if status < 0 else status, False)


def stop(process):
    """Ends the process and its group: asked first, then killed."""
    for how, wait in ((signals.SIGTERM, 3), (signals.SIGKILL, 5)):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            pass
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue


def be_modest(pid):
    """A script may be starved or killed before the runner is."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        with open("/proc/%d/oom_score_adj" % pid, "w", encoding="ascii") as file:
            file.write("0")
    except OSError:
        pass


def be_important():
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-1000")
    except OSError:
        pass


# --- Scripts


class Runner:
    def __init__(self, service, work, grace_s, heartbeat_s):
        self.service = service
        self.work = work
        self.grace_s = grace_s
        self.heartbeat_s = heartbeat_s
        self.done = set()
        self.failed = []
        self.lock = threading.Lock()
        self.over = threading.Event()

    def beat(self):
        while not self.over.wait(self.heartbeat_s):
            try:
                self.service.signal("WORKING")
            except Failure as failure:
                say("heartbeat: %s" % failure)

    def download(self):
        """The scripts that are left: (commissioning, testing), without those already run."""
        body = self.service.scripts()
        if body is None:
            return [], []
        unpack(body, self.work)
        with open(os.path.join(self.work, "index.json"), encoding="utf-8") as file:
            index = json.load(file)["1.0"]
        lists = (index.get(k, []) for k in ("commissioning_scripts", "testing_scripts"))
        commissioning, testing = ([s for s in scripts if ident(s) not in self.done] for scripts in lists)
        return commissioning, testing

    def run(self):
        """Everything. Returns the process's exit status."""
        threading.Thread(target=self.beat, daemon=True).start()
        try:
            commissioning, testing = self.download()
            while commissioning:
                self.run_phases(commissioning, serial_bmc=True)
                if self.failed:
                    return self.finish("FAILED", "commissioning")
                commissioning, testing = self.download()
            if testing:
                self.service.signal("TESTING")
                self.run_phases(testing, serial_bmc=False)
            return self.finish("FAILED", "testing") if self.failed else self.finish("OK", "")
        finally:
            self.over.set()

    def finish(self, status, phase):
        text = ""
        if self.failed:
            text = "%d %s script(s) failed: %s" % (len(self.failed), phase, ", ".join(sorted(self.failed)))
        say(text or "all scripts passed")
        self.service.signal(status, text)
        return 0

    def run_phases(self, scripts, serial_bmc):
        """One by one; then instances of one script beside each other; then all the rest at once."""
        order = lambda s: (HARDWARE_ORDER.get(s.get("hardware_type", 0), 4), s["name"], s.get("script_result_id") or 0)
        scripts = sorted(scripts, key=order)
        by_kind = lambda kind: [s for s in scripts if s.get("parallel", 0) == kind]
        for script in by_kind(0):
            self.run_one(script, bmc=serial_bmc)
        for name in dict.fromkeys(s["name"] for s in by_kind(1)):
            self.run_together([s for s in by_kind(1) if s["name"] == name])
        self.run_together(sorted(by_kind(2), key=lambda s: bool(s.get("packages"))))

    def run_together(self, scripts):
        threads = [threading.Thread(target=self.run_one, args=(s,)) for s in scripts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run_one(self, script, bmc=False):
        name, started = script["name"], time.monotonic()
        try:
            passed = self.run_script(script, bmc)
        except Failure as failure:
            say("%s: %s" % (name, failure))
            passed = False
        say("%s %s after %.1f s" % (name, "passed" if passed else "FAILED", time.monotonic() - started))
        with self.lock:
            self.done.add(ident(script))
            if not passed:
                self.failed.append(name)

    def run_script(self, script, bmc):
        name = script["name"]
        out = os.path.join(self.work, "out", "%s.%s" % (name, script.get("script_result_id", "0")))
        os.makedirs(os.path.dirname(out), exist_ok=True)
        paths = {"combined": out, "out": out + ".out", "err": out + ".err", "yaml": out + ".yaml", "bmc": out + ".bmc"}
        downloads = os.path.join(self.work, "downloads", os.path.basename(out))
        os.makedirs(downloads, exist_ok=True)
        env = dict(
            os.environ,
            OUTPUT_COMBINED_PATH=paths["combined"],
            OUTPUT_STDOUT_PATH=paths["out"],
            OUTPUT_STDERR_PATH=paths["err"],
            RESULT_PATH=paths["yaml"],
            DOWNLOAD_PATH=downloads,
            RUNTIME=str(script.get("timeout_seconds", 0)),
            HAS_STARTED=str(bool(script.get("has_started"))),
            MAAS_RESOURCES_FILE=os.path.join(self.work, "resources.json"),
        )
        if bmc:
            env["BMC_CONFIG_PATH"] = paths["bmc"]
        started = time.monotonic()
        if any(script.get("packages", {}).values()):
            self.service.signal("INSTALLING", "Installing packages for " + name, script)
            status = install(script["packages"], env, paths, downloads)
            if status:
                self.report(script, "INSTALLING", status, started, paths)
                return False
        self.service.signal("WORKING", "Starting " + name, script)
        command = [os.path.join(self.work, script["path"])] + arguments(script)
        limit = script.get("timeout_seconds", 0)
        started = time.monotonic()
        status, timed_out = run_recorded(command, env, paths, limit + self.grace_s if limit else 0)
        if name == "50-maas-01-commissioning" and status == 0:
            shutil.copyfile(paths["out"], env["MAAS_RESOURCES_FILE"])
        self.report(script, "TIMEDOUT" if timed_out else "WORKING", status, started, paths)
        return status == 0

    def report(self, script, status, exit_status, started, paths):
        suffixes = (("", "combined"), (".out", "out"), (".err", "err"), (".yaml", "yaml"))
        files = {script["name"] + suffix: limited(paths[kind]) for suffix, kind in suffixes}
        self.service.signal(
            status,
            "Finished %s: exit status %d" % (script["name"], exit_status),
            script,
            exit_status,
            "%.3f" % (time.monotonic() - started),
            {name: content for name, content in files.items() if content is not None},
            bmc_fields(paths["bmc"]),
        )


def ident(script):
    return script.get("script_result_id", script["name"])


def bmc_fields(path):
    """What a script wrote to BMC_CONFIG_PATH (JSON, or lines of "key: value"), as fields of a signal."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return {}
    try:
        config = json.loads(text)
    except ValueError:
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        config = {key.strip(): value.strip().strip("\"'") for key, value in pairs}
    driver = config.pop("power_type", None)
    return {"power_type": driver, "power_parameters": json.dumps(config)} if driver else {}


def arguments(script):
    """A script's parameters as its command line."""
    line = []
    for name, parameter in sorted(script.get("parameters", {}).items()):
        value, kind = parameter.get("value"), parameter.get("type", "string")
        if value is None:
            continue
        fields = value if isinstance(value, dict) else {}
        device = fields.get("id_path") or "/dev/" + str(fields.get("name", ""))
        fields = dict(fields, input=device if kind == "storage" else fields.get("name", value), path=device)
        default = {"storage": "--storage={path}", "interface": "--interface={name}"}.get(kind, "--%s={input}" % name)
        line += (parameter.get("argument_format") or default).format(**fields).split()
    return line


def unpack(body, work):
    """Unpacks the tar. Names that lead out of the directory are refused."""
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        for member in archive:
            target = os.path.realpath(os.path.join(work, member.name))
            if not target.startswith(os.path.realpath(work) + os.sep):
                raise Failure("the tar names %r, which lies outside" % member.name)
            if member.isfile():
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as file:
                    shutil.copyfileobj(archive.extractfile(member), file)
                os.chmod(target, member.mode & 0o755)


# --- Packages

INSTALLING = threading.Lock()


def install(packages, env, paths, downloads):
    """Installs what a script needs; the exit status of the first command that fails, else 0."""
    env = dict(env, DEBIAN_FRONTEND="noninteractive")
    with INSTALLING:
        for command in commands(packages, downloads):
            if callable(command):
                try:
                    command()
                except (OSError, ValueError, tarfile.TarError) as error:
                    for kind in ("combined", "err"):
                        with open(paths[kind], "a", encoding="utf-8") as file:
                            file.write("download failed: %s\n" % error)
                    return 1
                continue
            status, _ = run_recorded(command, env, paths, 1800)
            if status:
                return status
    return 0


def commands(packages, downloads):
    """Commands (lists) and downloads (callables) that bring the packages, in order."""
    apt = packages.get("apt") or []
    if apt:
        if not os.path.exists("/var/cache/apt/pkgcache.bin"):
            yield ["apt-get", "-qq", "update"]
        yield ["apt-get", "-qq", "-y", "install"] + apt
    for snap in packages.get("snap") or []:
        snap = {"name": snap} if isinstance(snap, str) else snap
        line = ["snap", "install", snap["name"]]
        line += ["--" + snap["channel"]] if snap.get("channel") else []
        mode = {"classic": "--classic", "dev": "--devmode", "jail": "--jailmode"}.get(snap.get("mode"))
        yield line + ([mode] if mode else [])
    for url in packages.get("url") or []:
        target = os.path.join(downloads, os.path.basename(urllib.parse.urlsplit(url).path) or "download")
        yield lambda url=url, target=target: fetch(url, target)
        if target.endswith(".deb"):
            yield ["apt-get", "-qq", "-y", "install", target]
        elif target.endswith(".snap"):
            yield ["snap", "install", "--dangerous", target]
        else:
            yield lambda target=target: unpack_download(target, downloads)


def fetch(url, target):
    with urllib.request.urlopen(url, timeout=60) as answer, open(target, "wb") as file:
        shutil.copyfileobj(answer, file)


def unpack_download(path, downloads):
    if tarfile.is_tarfile(path):
        with open(path, "rb") as file, tarfile.open(fileobj=file) as archive:
            archive.extractall(downloads)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(downloads)


def main():
    parser = argparse.ArgumentParser(description="Runs the scripts that the rack has for this machine.")
    parser.add_argument("--config", help="cloud-config with the MAAS datasource (default: the kernel command line's)")
    parser.add_argument("--work", help="directory to work in (default: a new one)")
    parser.add_argument("--grace", type=float, default=300, help="seconds a script may run beyond its time-out")
    parser.add_argument("--heartbeat", type=float, default=120, help="seconds between signs of life")
    parser.add_argument("--hurry", type=float, default=1, help="divide the pauses between tries by this")
    options = parser.parse_args()
    be_important()
    work = options.work or tempfile.mkdtemp(prefix="hostler-")
    pauses = PAUSES if options.hurry == 1 else tuple(p / options.hurry for p in PAUSES)
    try:
        paths = [options.config] if options.config else sorted(glob.glob(CONFIGS))
        service = Service(read_credentials(paths), pauses)
        try:
            return Runner(service, work, options.grace, options.heartbeat).run()
        except Failure:
            raise
        except Exception as error:  # A defect of ours must reach the operator, not only a log on a machine that goes off.
            service.signal("FAILED", "the runner broke: %s: %s" % (type(error).__name__, error))
            raise
    except Failure as failure:
        say("giving up: %s" % failure)
        return 1


if __name__ == "__main__":
    sys.exit(main())
