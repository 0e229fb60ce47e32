"""What others have and a space must not reach: made, told as `name=value`, and held until the input ends.

Run on the node and in a second space. Where the node's root makes a key, a space, which may not, has its keyring.
"""
import ctypes, fcntl, os, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mq_open.restype = ctypes.c_int
name = "steading-" + sys.argv[1]


def call(number, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    return libc.syscall(ctypes.c_long(number), *words)


JOIN_SESSION, SET_PERMISSIONS, OF_SESSION = 1, 5, -3
OWNER_ALL = 0x3F3F0000
for what, serial in (
    ("keyring", call(250, JOIN_SESSION, name.encode())),
    ("key", call(248, b"user", name.encode(), b"of the node", 11, OF_SESSION)),
):
    # Its owner may do all with it, whatever process asks.
    call(250, SET_PERMISSIONS, serial, OWNER_ALL)
    print(f"{what}={serial}")

held = [socket.socket(socket.AF_UNIX) for _ in range(2)]
path = f"/run/{name}.socket"
if os.path.exists(path):
    os.unlink(path)
for stream, address in zip(held, ("\0" + name, path)):
    stream.bind(address)
    stream.listen(16)
up = struct.pack("16sH14x", b"lo", 0x41)
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, up)
listener = socket.create_server(("127.0.0.1", 7177))
number = sum(name.encode())
print(f"shared_memory={libc.shmget(number, 4096, 0o1600)}")
queue = ctypes.c_char_p(b"/" + name.encode())
print(f"queue={libc.mq_open(queue, os.O_RDWR | os.O_CREAT, 0o600, None)}")
print("held=all", flush=True)
sys.stdin.read()
libc.shmctl(libc.shmget(number, 4096, 0), 0, None)
libc.mq_unlink(queue)
os.unlink(path)
