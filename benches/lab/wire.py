"""A capture, read: Ethernet frames with what the lab's checks ask of them. Classic pcap as tcpdump writes it; IPv4 and IPv6, UDP and TCP."""
import collections
import socket
import struct

Frame = collections.namedtuple("Frame", "time source target protocol sender receiver sport dport data number", defaults=[0])


def mac(raw):
    return ":".join(f"{b:02x}" for b in raw)


def frames(path):
    """Every whole frame: MACs, "ip" or "ip6" or the EtherType, addresses, ports (0 where there are none), payload; of TCP its sequence number."""
    with open(path, "rb") as f:
        raw = f.read()
    order = "<" if raw[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    fraction = 1e9 if raw[:4] in (b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d") else 1e6
    at = 24
    while at + 16 <= len(raw):
        seconds, part, length, _ = struct.unpack_from(order + "IIII", raw, at)
        at += 16
        if at + length > len(raw):
            return   # the last frame is still being written
        yield frame(seconds + part / fraction, raw[at:at + length])
        at += length


def frame(time, raw):
    target, source, kind = mac(raw[0:6]), mac(raw[6:12]), struct.unpack_from(">H", raw, 12)[0]
    if kind == 0x0800 and len(raw) >= 34:
        header, next_, sender, receiver = (raw[14] & 15) * 4, raw[23], socket.inet_ntop(2, raw[26:30]), socket.inet_ntop(2, raw[30:34])
        name, rest = "ip", raw[14 + header:14 + struct.unpack_from(">H", raw, 16)[0]]
        if struct.unpack_from(">H", raw, 20)[0] & 0x1fff:
            next_ = 0   # a later fragment has no ports
    elif kind == 0x86dd and len(raw) >= 54:
        next_, sender, receiver = raw[20], socket.inet_ntop(10, raw[22:38]), socket.inet_ntop(10, raw[38:54])
        name, rest = "ip6", raw[54:]
    else:
        return Frame(time, source, target, f"0x{kind:04x}", "", "", 0, 0, raw[14:])
    if next_ == 17 and len(rest) >= 8:
        return Frame(time, source, target, f"{name}/udp", sender, receiver, *struct.unpack_from(">HH", rest), rest[8:])
    if next_ == 6 and len(rest) >= 20:
        return Frame(time, source, target, f"{name}/tcp", sender, receiver, *struct.unpack_from(">HH", rest), rest[(rest[12] >> 4) * 4:],
                     struct.unpack_from(">I", rest, 4)[0])
    return Frame(time, source, target, f"{name}/{next_}", sender, receiver, 0, 0, rest)


def question(data):
    """The name that a DNS query over UDP asks for, in lower case; "" where it is none."""
    labels, at = [], 12
    while at < len(data) and data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode("ascii", "replace").lower())
        at += 1 + data[at]
    return ".".join(labels)


def acks(path):
    """DHCP ACKs in their order: (time, MAC, address, lease seconds, server)."""
    for f in frames(path):
        if f.protocol != "ip/udp" or f.sport != 67 or len(f.data) < 244 or f.data[0] != 2:
            continue
        options, at = {}, 240
        while at + 1 < len(f.data) and f.data[at] != 255:
            if f.data[at] == 0:
                at += 1
                continue
            options[f.data[at]] = f.data[at + 2:at + 2 + f.data[at + 1]]
            at += 2 + f.data[at + 1]
        if options.get(53) == b"\x05" and 51 in options:
            yield (f.time, mac(f.data[28:34]), socket.inet_ntop(2, f.data[16:20]), struct.unpack(">I", options[51])[0],
                   socket.inet_ntop(2, options[54]))


def twice_leased(path):
    """Addresses that two MACs held at the same time, by the ACKs on the wire (a release is not looked for)."""
    held, found = {}, []
    for time, client, address, lease, server in acks(path):
        other = held.get(address)
        if other and other[0] != client and other[1] > time:
            found.append((address, other[0], client, server, time))
        held[address] = (client, time + lease)
    return found
