# Everything at once, as root of a space. What cannot be started any more, because nothing can, is tried again.
ulimit -n 500000
cat >/root/files.py <<'PY'
import ctypes, os, time
libc = ctypes.CDLL(None)
held = []
while True:
    try:
        held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        watch = libc.inotify_init1(0)
        time.sleep(0.01)
    if len(held) % 1000 == 0:
        libc.inotify_add_watch(libc.inotify_init1(0), b"/", 0xFFF)
PY
cat >/root/flood.py <<'PY'
import socket
while True:
    # A new connection for the table each time, and full packets in between.
    stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for port in range(1024, 1034):
            stream.sendto(bytes(1400), ("198.51.100.1", port))
    except OSError:
        pass
    stream.close()
PY
for n in 1 2; do (while :; do python3 /root/flood.py; done) & done
(while :; do python3 /root/files.py; done) &
(while :; do python3 -c 'held = [bytearray(16 << 20) for _ in range(64)]'; done) &
(while :; do dd if=/dev/zero of=/root/full bs=1M 2>/dev/null; sync; rm -f /root/full; done) &
(while :; do dd if=/dev/zero of=/root/direct bs=4k count=2000 oflag=direct,dsync 2>/dev/null; done) &
bomb() { bomb | bomb & }
while :; do bomb; done
