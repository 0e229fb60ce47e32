# A file system of FUSE over the folder that is named: it answers the first call (struct fuse_init_out of version 7.31),
# and then reads what it is asked and says nothing.
import ctypes, os, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/dev/fuse", os.O_RDWR)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
mounted = libc.mount(b"silent", sys.argv[1].encode(), b"fuse", 0, options)
unique = struct.unpack_from("<IIQ", os.read(fd, 1 << 20))[2]
body = struct.pack("<IIIIHHIIHHI7I", 7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, 0, *([0] * 7))
os.write(fd, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)
print("mounted=%d" % mounted, flush=True)
while True:
    print("asked=%d" % struct.unpack_from("<II", os.read(fd, 1 << 20))[1], flush=True)
