"""A small server: "0" is answered after some work and a synced file, any other number by so many bytes."""
import hashlib, os, socket

listener = socket.create_server(("0.0.0.0", 7000))
while True:
    stream, _ = listener.accept()
    with stream:
        count = int(stream.recv(16))
        if count == 0:
            hashlib.sha256(bytes(1 << 20)).digest()
            with open("/root/file", "wb") as file:
                file.write(bytes(65536))
                os.fsync(file.fileno())
            stream.sendall(b"done")
        else:
            stream.sendall(bytes(count))
