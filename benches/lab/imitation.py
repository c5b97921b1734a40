"""Whether a simulated machine says what the real one said: a capture of a real boot is read, a simulated machine with the same MAC and UUID is
played the answers that the real one was given (`hostler bench machine`, a machine at the end of a pipe), and what the two say is compared byte
for byte, in its order. What may differ stands in the tables below with its reason; everything else is a fault of the simulated machine.
"""
import base64
import difflib
import io
import json
import os
import re
import subprocess
import tarfile

import wire
from lab import NET
from product import BINARY

# What may differ within a message. Each is replaced by its name before the two are compared.
MAY_DIFFER = {
    "xid": "drawn for each exchange",
    "unset": "EDK2's HTTP boot asks for one option more than it names: the byte is what its memory held, 0xeb on most days and 0 on one",
    "secs": "the client's clock, and firmware counts it in ways of its own",
    "duid time": "dhclient's DUID holds the time when it was made",
    "version": "of a program in its User-Agent: Debian's updates change it",
    "nonce": "drawn for each request; its form (digits, or 32 hexadecimal digits) is compared",
    "oauth time": "the machine's clock",
    "timestamp": "the same, in an event; how many digits its fraction has is chance",
    "boundary": "drawn for each form, 40 hexadecimal digits",
    "runtime": "how long a script took, with three digits of a second",
    "output": "what a script printed: the simulated machine is made of other hardware",
    "length": "of a body in which something of a length of its own may differ; that it is the body's length is checked",
}
# What the real machine says and the simulated one does not.
ONLY_REAL = {
    "events": "of cloud-init's events the simulated machine posts fewer, each as the real one does and in the same order",
    ("ip/udp", 53): "it looks no names up: in a yard every URL has an address",
    ("ip/udp", 123): "it keeps no time",
    ("ip/udp", 5247): "it sends no logs, in the yard the logs' load is drawn by its own tool",
    ("ip/tcp", 5247): "the same",
    ("ip/tcp", 8000): "it installs no packages",
    "ip/2": "the wire's business, as are the next ones: groups",
    "ip/1": "echoes and refusals",
    "ip6": "IPv6's own talk; nothing is served over it in the lab",
    "0x": "ARP, LLDP",
}
# What the simulated machine says and the real one did not.
ONLY_SIMULATED = {
    "alive": "the runner's sign of life comes every 120 s, and the lab's scripts take a few; in the yard one comes half-way",
}
# What is not compared at all: ports of its own, all below UDP and TCP, and time. Events stand in an order of their own, since cloud-init posts
# them from a thread beside its crawl; so do the signals of each script that runs beside others. The end is the runner's last word, after which the BMC cuts the power wherever the machine is.


# The capture -----------------------------------------------------------------------------------------------------------

class Stream:
    """One direction of a connection: bytes in the order of their numbers, and when each part came."""

    def __init__(self):
        self.first, self.parts, self.times, self.bytes = None, {}, [], b""

    def add(self, number, time, data):
        if self.first is None:
            self.first = number
        self.parts.setdefault((number - self.first) & 0xffffffff, (time, data))

    def join(self):
        pieces, end = [], 0
        for at in sorted(self.parts):
            time, data = self.parts[at]
            assert at <= end, "the capture has a hole"
            if at + len(data) > end:
                self.times.append((end, time))
                pieces.append(data[end - at:])
                end = at + len(data)
        self.bytes = b"".join(pieces)

    def time(self, offset):
        return next(time for start, time in reversed(self.times) if start <= offset)


def head_of(data):
    """A message's head and where its body begins."""
    end = data.index(b"\r\n\r\n") + 4
    return data[:end], end


def length_in(head):
    found = re.search(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)\r\n", head)
    return int(found.group(1)) if found else None


def requests(up, down):
    """The requests of a connection with their answers: (time, whether the connection was new, request, status, body)."""
    at, answered, found = 0, 0, []
    while at < len(up.bytes):
        head, end = head_of(up.bytes[at:])
        length = end + (length_in(head) or 0)
        answer, begins = head_of(down.bytes[answered:]) if answered < len(down.bytes) else (b"HTTP/1.1 0", 0)
        status, size = int(answer.split(b" ")[1]), length_in(answer)
        bare = head.startswith(b"HEAD") or status in (204, 304)
        assert bare or size is not None or b"chunked" not in answer, "a chunked answer"
        size = 0 if bare else len(down.bytes) - answered - begins if size is None else size
        body = down.bytes[answered + begins:answered + begins + size]
        found.append((up.time(at), at == 0, up.bytes[at:at + length], status, body))
        at, answered = at + length, answered + begins + size
    return found


def datagrams(data, transfer):
    """A server that hands the kernel several blocks in one piece (UDP_SEGMENT) is seen so on the bridge: each is a packet."""
    granted = [told for _, _, answers in transfer[:1] for told in answers if told[:2] == b"\0\6"]
    found = re.search(rb"blksize\0(\d+)\0", granted[0]) if granted else None
    size = 4 + (int(found[1]) if found else 512)
    return [data[at:at + size] for at in range(0, len(data), size)] if data[:2] == b"\0\3" else [data]


class Real:
    """What one machine said in a capture, and what it was told."""

    def __init__(self, path, mac):
        self.dhcp, self.transfers, self.requests, self.others = [], [], [], set()
        streams, ports = {}, {}
        for f in wire.frames(path):
            if f.source == mac:
                self._said(f, streams, ports)
            elif f.protocol == "ip/udp" and f.sport == 67 and wire.mac(f.data[28:34]) == mac and self.dhcp:
                self.dhcp[-1][2].append(f.data)
            elif f.target == mac:
                self._heard(f, streams, ports)
        for up, down in streams.values():
            up.join(), down.join()
            self.requests += requests(up, down)
        self.requests.sort(key=lambda r: r[0])

    def _said(self, f, streams, ports):
        if f.protocol == "ip/udp" and f.dport == 67:
            self.dhcp.append((f.time, f.data, []))
        elif f.protocol == "ip/udp" and f.dport == 69:
            ports[f.sport] = transfer = [(f.time, f.data, [])]
            self.transfers.append(transfer)
        elif f.protocol == "ip/udp" and f.sport in ports:
            # Said again since an answer was late: that is no more than said once.
            if ports[f.sport][-1][1] != f.data:
                ports[f.sport].append((f.time, f.data, []))
        elif f.protocol == "ip/tcp" and f.dport not in (8000, 5247):
            pair = streams.setdefault((f.receiver, f.sport, f.dport), (Stream(), Stream()))
            if f.data:
                pair[0].add(f.number, f.time, f.data)
        elif not (f.protocol in ONLY_REAL or f.protocol[:3] in ONLY_REAL or f.protocol[:2] in ONLY_REAL):
            self.others.add((f.protocol, f.dport))

    def _heard(self, f, streams, ports):
        pair = streams.get((f.sender, f.dport, f.sport))
        if f.protocol == "ip/tcp" and pair and f.data:
            pair[1].add(f.number, f.time, f.data)
        elif f.protocol == "ip/udp" and f.dport in ports:
            told = ports[f.dport][-1][2]
            told += [packet for packet in datagrams(f.data, ports[f.dport]) if packet not in told]

    def said(self):
        """In the order of the wire; a transfer stands where it was asked for."""
        all_ = [(time, "dhcp", data) for time, data, _ in self.dhcp]
        all_ += [(t[0][0], "tftp", [data for _, data, _ in t]) for t in self.transfers]
        all_ += [(time, "http", (new, request)) for time, new, request, _, _ in self.requests]
        return [(kind, what) for _, kind, what in sorted(all_, key=lambda one: one[0])]


# The simulated machine ---------------------------------------------------------------------------------------------------

class Played:
    """A simulated machine is played what the real one was told, as long as it asks for the same things. `said` as of the real one."""

    def __init__(self, real, m, firmware, last):
        self.real, self.said, self.told, self.end = real, [], [], "the capture's end"
        self.timer, self.last = None, last
        self.dhcp, self.transfer, self.keeps = iter(real.dhcp), iter(real.transfers), False
        self.events = [r for r in real.requests if is_event(r[2])]
        self.asked = iter([r for r in real.requests if not is_event(r[2])])
        command = [BINARY, "bench", "machine", "--firmware", firmware, "--mac", m["mac"], "--uuid", m["uuid"],
                   "--now", str(int(real.dhcp[0][0]))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as self.pipe:
            try:
                line = "power_on"
                while line is not None:
                    line = self._follow(self._step(line))
            finally:
                self.pipe.stdin.close()

    def _step(self, line):
        self.pipe.stdin.write(json.dumps(line) + "\n")
        self.pipe.stdin.flush()
        return json.loads(self.pipe.stdout.readline())

    def _follow(self, deeds):
        """Takes note of what the machine does; what happens to it next, or None at the end."""
        answer = None
        for deed in deeds:
            kind, what = next(iter(deed.items())) if isinstance(deed, dict) else (deed, None)
            if kind in ("off", "hang"):
                self.end = f"the simulated machine's: {what or kind}"
                return None
            if kind in ("wait", "expect"):
                self.timer = kind   # What comes meanwhile does not end it.
            elif kind == "dhcp":
                self._dhcp(what["fresh"], base64.b64decode(what["bytes"]))
                if up_to(self.said[-1:], self.last) != self.said[-1:]:
                    return None
            elif kind in ("tftp_ask", "tftp_say"):
                self._tftp(kind, base64.b64decode(what))
            elif kind == "http":
                answer = self._http(base64.b64decode(what["bytes"]), what["keep"])
                if answer is None:
                    return None
        if answer:
            return {"answered": {"status": answer[3], "body": text(answer[4])}}
        if self.told:
            return {"datagram": text(self.told.pop(0))}
        if self.timer == "wait":
            self.timer = None
            return "elapsed"
        self.end = "it waits for what the real machine was not told"
        return None

    def _dhcp(self, fresh, data):
        self.keeps = self.keeps and not fresh
        self.said.append(("dhcp", data))
        _, _, told = next(self.dhcp, (0, b"", []))
        self.told = [t[:4] + data[4:8] + t[8:] for t in told]

    def _tftp(self, kind, data):
        if kind == "tftp_ask":
            self.said.append(("tftp", [data]))
            self.packets = iter(next(self.transfer, []))
        else:
            self.said[-1][1].append(data)
        self.told = list(next(self.packets, (0, b"", []))[2])

    def _http(self, data, keeps):
        self.said.append(("http", (not self.keeps, data)))
        self.keeps, self.told = keeps, []
        if is_event(data):
            return next((r for r in self.events if event_name(r[2]) == event_name(data)), self.events[0])
        if is_alive(data):
            return 0, 0, b"", 200, b"OK"
        answer = next(self.asked, None)
        if answer is None or line_of(answer[2]) != line_of(data):
            self.end = f"it asks for {line_of(data)}, the real machine did for {answer and line_of(answer[2])}"
            return None
        return answer


def text(data):
    return base64.b64encode(data).decode()


def line_of(request):
    return request.split(b"\r\n", 1)[0].decode()


def is_event(request):
    return b"/metadata/status/" in request.split(b"\r\n", 1)[0]


def event_name(request):
    event = json.loads(request.split(b"\r\n\r\n", 1)[1])
    return event["event_type"], event["name"]


def is_alive(request):
    return b'name="status"\r\n\r\nWORKING\r\n' in request and b'name="name"' not in request


def scripts_beside(real):
    """The names of the scripts that run beside others, by the index of the tar that the machine was given."""
    tars = [body for _, _, request, status, body in real.requests if line_of(request).endswith("/maas-scripts HTTP/1.1") and status == 200]
    if not tars:
        return set()
    with tarfile.open(fileobj=io.BytesIO(tars[0])) as tar:
        lists = json.load(tar.extractfile("index.json"))["1.0"]
    return {script["name"] for scripts in lists.values() for script in scripts if script.get("parallel")}


def is_last(kind, what):
    return kind == "http" and b'name="status"\r\n\r\nOK\r\n' in what[1]


# Messages as texts, with what may differ left out --------------------------------------------------------------------------

def may(name, form=""):
    """What stands for something that may differ; it must be in the table."""
    assert name in MAY_DIFFER, name
    return f"<{name}{form and ': '}{form}>"


def shown(kind, what):
    """A message as lines."""
    if kind == "dhcp":
        return dhcp(what)
    if kind == "tftp":
        return ["TFTP"] + [repr(packet) for packet in what]
    return http(*what)


def dhcp(data):
    lines = ["DHCP", f"header {data[:4].hex()} {may('xid')} {may('secs')} {data[10:28].hex()}", f"chaddr {data[28:44].hex()}",
             f"sname, file {data[44:236].hex().rstrip('0')}", f"cookie {data[236:240].hex()}"]
    at = 240
    while at < len(data) and data[at] != 255:
        code, value = data[at], data[at + 2:at + 2 + data[at + 1]]
        assert code, "padding between options"
        if code == 61 and value[:1] == b"\xff" and value[5:9] == b"\0\1\0\1":
            lines.append(f"{code}: {value[:9].hex()} {may('duid time')} {value[13:].hex()}")
        elif code == 55 and b"HTTPClient:" in data:
            lines.append(f"{code}: {value[:-3].hex()} {may('unset')} {value[-2:].hex()}")
        else:
            readable = value.isascii() and value.decode().isprintable()
            lines.append(f"{code}: {value.hex()} {value.decode() if readable else ''}")
        at += 2 + len(value)
    return [*lines, f"end, then {data[at + 1:].hex() or 'nothing'}"]


def http(new, request):
    head, begins = head_of(request)
    body, length = request[begins:], length_in(head)
    assert length in (None, len(body)), f"Content-Length {length}, a body of {len(body)} bytes"
    head, body = head.decode("latin1"), body.decode("latin1")
    head = re.sub(r"(?m)^(User-Agent: [A-Za-z-]+/)[0-9]\S*", lambda found: found[1] + may("version"), head)
    stamp = re.search(r'oauth_timestamp="(\d{10})"', head)
    if stamp:
        head = head.replace(stamp[0], f'oauth_timestamp="{may("oauth time")}"')
        head = re.sub(rf'oauth_nonce="\d{{8,20}}{stamp[1]}"', f'oauth_nonce="{may("nonce", "digits, then the time")}"', head)
        head = re.sub(r'oauth_nonce="[0-9a-f]{32}"', f'oauth_nonce="{may("nonce", "32 hexadecimal digits")}"', head)
    boundary, varies = re.search(r"boundary=([0-9a-f]{40})\r\n", head), 0
    if boundary:
        head, body = head.replace(boundary[1], may("boundary")), body.replace(boundary[1], may("boundary"))
        body = re.sub(r'(name="runtime"\r\n\r\n)\d+\.\d{3}\r\n', lambda found: f"{found[1]}{may('runtime')}\r\n", body)
        end = f"\r\n--{may('boundary')}"
        body, varies = re.subn(rf"(?s)(octet-stream\r\n\r\n).*?{end}", lambda found: found[1] + may("output") + end, body)
    else:
        body, varies = re.subn(r'"timestamp": \d+\.\d+', f'"timestamp": {may("timestamp")}', body)
    if varies:
        head = re.sub(r"(Content-Length: )\d+", lambda found: found[1] + may("length"), head)
    return [f"HTTP on {'a new' if new else 'the same'} connection", *head.splitlines(), *body.splitlines()]


# The comparison ------------------------------------------------------------------------------------------------------------

def up_to(said, last):
    """Until the runner's last word, or until firmware and loaders have done their part."""
    for at, (kind, what) in enumerate(said):
        if last == "runner" and is_last(kind, what):
            return said[:at + 1]
        if last == "loaders" and kind == "dhcp" and b"Client:Arch:" not in what:
            return said[:at]
    return said


def in_two(said):
    """All but the events, and the events."""
    of = [(is_event(what[1]) if kind == "http" else False, kind, what) for kind, what in said]
    return [(k, w) for event, k, w in of if not event], [(k, w) for event, k, w in of if event]


def in_order(said, beside):
    """The signals of scripts that run beside each other, script by script: threads send them. They stand where the first of them stands."""
    name = lambda what: (re.search(rb'name="name"\r\n\r\n([^\r]*)\r\n', what[1]) or [b"", b""])[1].decode()   # noqa: E731
    theirs = [one for one in said if one[0] == "http" and name(one[1]) in beside]
    if not theirs:
        return said
    first = said.index(theirs[0])
    block = said[first:first + len(theirs)]
    assert all(one in theirs for one in block), "something else was said among the signals of scripts that run beside each other"
    return said[:first] + sorted(theirs, key=lambda one: name(one[1])) + said[first + len(theirs):]


def differences(real, simulated, beside):
    """Lines of a diff; none when the two say the same."""
    (real, real_events), (simulated, events) = in_two(real), in_two(simulated)
    simulated = [(k, w) for k, w in simulated if not (k == "http" and is_alive(w[1]))]
    posted = {event_name(w[1]) for _, w in events}
    real_events = [(k, w) for k, w in real_events if event_name(w[1]) in posted]
    lines = []
    for a, b in ((real, simulated), (real_events, events)):
        a, b = ([line for k, w in in_order(said, beside) for line in shown(k, w)] for said in (a, b))
        if a != b:
            lines += difflib.unified_diff(a, b, "real", "simulated", lineterm="", n=4)
    return lines


def bytes_match(capture, m, firmware, last="runner"):
    """Fails unless the simulated machine with that firmware says what the real one said, from power-on to `last`."""
    real = Real(capture, m["mac"])
    others = {o for o in real.others if o not in ONLY_REAL}
    assert not others, f"the real machine speaks to {others}, which no table names"
    played = Played(real, m, firmware, last)
    a, b = up_to(real.said(), last), up_to(played.said, last)
    beside = scripts_beside(real)
    found = differences(a, b, beside)
    assert not found, f"the simulated machine says something else ({played.end}):\n" + "\n".join(line[:300] for line in found[:200])
    kinds = {kind: sum(k == kind for k, _ in b) for kind in ("dhcp", "tftp", "http")}
    posted = len(in_two(b)[1])
    assert last == "loaders" or kinds["dhcp"] >= 6 and posted >= 15, (kinds, posted)
    for at in range(len(a)):
        assert differences(a[:at] + [broken(*a[at])] + a[at + 1:], b, beside) or is_other_event(a[at], b), f"a changed byte is not seen in {a[at]}"
    os.remove(capture)   # Of use only where the two differ.
    print(f"    the simulated machine's bytes match: {kinds['dhcp']} DHCP messages, {kinds['tftp']} TFTP transfers, {kinds['http']} requests "
          f"({posted} of {len(in_two(a)[1])} events)", flush=True)


def broken(kind, what):
    """The message with one bit of it turned, where nothing may differ."""
    if kind == "dhcp":
        at = what.index(b"\x37", 240) + 2   # the first option that is asked for
        return kind, what[:at] + bytes([what[at] ^ 1]) + what[at + 1:]
    if kind == "tftp":
        return kind, [*what[:-1], what[-1][:-1] + bytes([what[-1][-1] ^ 1])]
    at = what[1].index(b"HTTP/1.1") + 5
    return kind, (what[0], what[1][:at] + b"0" + what[1][at + 1:])


def is_other_event(one, simulated):
    """An event that the simulated machine does not post."""
    kind, what = one
    return kind == "http" and is_event(what[1]) and event_name(what[1]) not in {event_name(w[1]) for _, w in in_two(simulated)[1]}
