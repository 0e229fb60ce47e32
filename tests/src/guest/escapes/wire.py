"""Frames that no honest machine sends, by root inside, each with its name in it: `sent=COUNT`."""
import socket, struct, sys, time

own, neighbour, gateway, internet, uplink = sys.argv[1:6]
FALSE = bytes.fromhex("020000000066")
everybody = b"\xff" * 6

# The way to the gateway's own address on the wire.
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
mac = None
for _ in range(50):
    asker.sendto(b"who?", (gateway, 9))
    time.sleep(0.1)
    for line in open("/proc/net/arp"):
        words = line.split()
        if words[0] == gateway and words[3] != "00:00:00:00:00:00":
            mac = bytes.fromhex(words[3].replace(":", ""))
    if mac:
        break
with open("/sys/class/net/eth0/address") as file:
    mine = bytes.fromhex(file.read().strip().replace(":", ""))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
sent = 0


def send(to, kind, packet, name):
    global sent
    for _ in range(3):
        wire.send(to + mine + struct.pack("!H", kind) + packet + b"steading-" + name.encode() + b".")
    sent += 1


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source, target, name):
    payload = struct.pack("!HHHH", 4444, 7777, 8 + len(name) + 10, 0)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + 8 + len(name) + 10, 1, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source, target, name):
    payload = struct.pack("!HHHH", 4444, 7777, 8 + len(name) + 10, 0)
    return struct.pack("!IHBB16s16s", 0x60000000, len(payload) + len(name) + 10, 17, 64,
                       socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, target)) + payload


def arp(claims, hardware):
    """Everybody is told that this address is here."""
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, hardware, socket.inet_aton(claims), everybody,
                       socket.inet_aton(claims))


for what, source, target in (
    ("honest", own, internet),
    ("as-the-neighbour", neighbour, internet),
    ("as-the-gateway", gateway, internet),
    ("as-the-uplink", uplink, internet),
    ("all-hosts", own, "224.0.0.1"),
    ("mdns", own, "224.0.0.251"),
    ("group", own, "239.1.2.3"),
    ("broadcast", own, "255.255.255.255"),
    ("on-link-broadcast", own, "203.0.113.255"),
    ("on-link", own, "203.0.113.77"),
    ("link-local", own, "169.254.7.7"),
):
    send(mac, 0x0800, ipv4(source, target, what), what)
for what, source, target in (
    ("six-on-link", "2001:db8:113::66", "2001:db8:113::1"),
    ("six-internet", "2001:db8:113::66", "2001:db8:ffff::1"),
    ("six-link-local", "fe80::66", "fe80::1"),
    ("six-all-nodes", "fe80::66", "ff02::1"),
):
    send(mac, 0x86DD, ipv6(source, target, what), what)
send(everybody, 0x0806, arp(neighbour, FALSE), "arp-neighbour")
send(everybody, 0x0806, arp(gateway, FALSE), "arp-gateway")
# Straight to the neighbour's or anybody's hardware, past every table.
send(everybody, 0x0800, ipv4(own, neighbour, "to-everybody"), "to-everybody")
print(f"sent={sent}", flush=True)
