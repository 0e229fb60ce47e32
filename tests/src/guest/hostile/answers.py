"""What a good space does for its user, over one login: a line for each line, by what was asked for."""
import hashlib, os, sys

for order in sys.stdin:
    order = order.strip()
    if order == "line":
        answer = b"a line"
    elif order == "work":
        hashlib.sha256(bytes(1 << 20)).digest()
        with open("/root/file", "wb") as file:
            file.write(bytes(65536))
            os.fsync(file.fileno())
        answer = b"done"
    else:
        answer = b"x" * int(order)
    sys.stdout.buffer.write(answer + b"\n")
    sys.stdout.buffer.flush()
