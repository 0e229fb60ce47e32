"""What is publicly known to lead out of a container, each tried once: `name=ERRNO`, 0 where it went through.

Run twice: by root inside a space, and, as the control, by the node's root in the same base. Nothing here harms the
node where it goes through: modules and kernels are empty, clocks are set to what they are, files are only opened.

    tries.py space|node NAME=VALUE...

The values are what holder.py told on the node (`node_`) and in another space (`other_`), and `other_id`, the first id
of that space's range: where the wall is whose something is, the control is somebody whose it is.
"""
import ctypes, os, socket, struct, sys, time

inside = sys.argv[1] == "space"
there = {name: int(value) for name, value in (word.split("=") for word in sys.argv[2:])}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(number, *arguments):
    """One system call; its errno."""
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return 0 if libc.syscall(ctypes.c_long(number), *words) >= 0 else ctypes.get_errno()


def errno_of(what):
    """The errno of a Python call."""
    try:
        what()
        return 0
    except OSError as error:
        return error.errno


def opened(path, flags):
    """Opens and closes, without reading or writing."""
    return errno_of(lambda: os.close(os.open(path, flags)))


def wrote(path, text):
    def write():
        file = os.open(path, os.O_WRONLY)
        try:
            os.write(file, text)
        finally:
            os.close(file)
    return errno_of(write)


def mounted(source, kind, flags=0, data=None):
    place = b"/dev/shm/place"
    os.makedirs(place, exist_ok=True)
    said = call(165, ctypes.c_char_p(source), ctypes.c_char_p(place), ctypes.c_char_p(kind), flags,
                ctypes.c_char_p(data))
    if said == 0:
        call(166, ctypes.c_char_p(place), 2)
    return said


def made_node(kind, major, minor):
    path = "/dev/shm/node"
    said = errno_of(lambda: os.mknod(path, kind | 0o600, os.makedev(major, minor)))
    if said == 0:
        os.unlink(path)
    return said


def in_child(what):
    """The errno that a child exits with: for what changes the process itself."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(what())
        except BaseException:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def maps_foreign_id():
    """An id outside the own range, given to a nested user namespace."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        call(272, 0x10000000)
        os.write(ready[1], b"!")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    said = wrote(f"/proc/{child}/uid_map", b"0 200000 1")
    os.write(go[1], b"!")
    os.waitpid(child, 0)
    return said


def mounts_disk_in_nested():
    """A file system of a disk, mounted by root of a nested user namespace."""
    def nested():
        # New user and mount namespaces: "root" there, and there alone.
        first = call(272, 0x10020000)
        return first or mounted(b"none", b"ext4")
    return in_child(nested)


def handle_of_volume(path):
    """The old door of name_to_handle_at: the root of the file system behind a mount, by its inode number."""
    mount = os.open(path, os.O_RDONLY)
    handle = struct.pack("=Iiii", 8, 1, 2, 0)
    buffer = ctypes.create_string_buffer(handle, len(handle))
    return call(304, mount, ctypes.byref(buffer), os.O_RDONLY | os.O_DIRECTORY)


def bpf_map():
    attributes = struct.pack("=IIII", 2, 4, 4, 1) + bytes(112)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return call(321, 0, ctypes.byref(buffer), len(attributes))


def sets_clock():
    now = struct.pack("=qq", int(time.time()), 0)
    return call(227, 0, ctypes.create_string_buffer(now, len(now)))


def real_time():
    return in_child(lambda: errno_of(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))))


def raises_hard_limit():
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    new = struct.pack("=QQ", 1024, hard + 1)
    return in_child(lambda: call(160, 7, ctypes.create_string_buffer(new, len(new))))


def abstract(name):
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(5)
    return errno_of(lambda: stream.connect("\0" + name))


def by_path(path):
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(5)
    return errno_of(lambda: stream.connect(path))


def of_the_other(kind, what):
    """The control of a wall that is a namespace: the same from within the other space's, which the node's root enters."""
    def enters():
        os.setns(os.open(f"/proc/{there['other_pid']}/ns/{kind}", os.O_RDONLY))
        return what()
    return what() if inside else in_child(lambda: errno_or(enters))


def errno_or(what):
    try:
        return what()
    except OSError as error:
        return error.errno


def loopback(port):
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    stream.settimeout(5)
    return errno_of(lambda: stream.connect(("127.0.0.1", port)))


def sockets_of_others():
    """Names in the kernel's list of local sockets."""
    with open("/proc/net/unix") as file:
        return sum("steading-" in line for line in file)


def asks_which_sockets():
    """Local sockets by the kernel's own answer (NETLINK_SOCK_DIAG, UNIX_DIAG), with their names."""
    ask = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
    ask.settimeout(5)
    ask.send(struct.pack("=IHHII", 40, 20, 0x301, 1, 0) + struct.pack("=BBHIIIII", 1, 0, 0, 0xFFFFFFFF, 0, 1, 0, 0))
    found = 0
    while True:
        part, at = ask.recv(1 << 16), 0
        while at < len(part):
            length, kind, _, _, _, said = struct.unpack_from("=IHHIIi", part, at)
            if kind == 2:
                raise OSError(-said, "no list of sockets")
            if kind == 3:
                return found
            found += b"steading-" in part[at:at + length]
            at += length + -length % 4


def link(kind, name=b"try0"):
    """Makes a link of that kind, and removes it; the kernel's errno."""
    def asked(message, flags, words):
        ask = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        ask.settimeout(60)
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + words
        ask.send(struct.pack("=IHHII", 16 + len(body), message, flags, 1, 0) + body)
        return -struct.unpack_from("=i", ask.recv(1 << 16), 16)[0]

    def word(kind, value):
        return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    named = word(3, name + b"\0")
    said = asked(16, 0x605, named + word(18, word(1, kind)))
    return said or asked(17, 5, named)


def encrypting_link():
    """One whose packets the kernel encrypts in workers that nobody is charged for. An ordinary one is made."""
    ordinary = link(b"veth")
    if ordinary:
        raise OSError(ordinary, "no ordinary link either")
    return link(b"wireguard")


def keyctl(act, *arguments):
    return call(250, act, *arguments)


def reads_key(serial):
    return keyctl(11, serial, ctypes.create_string_buffer(64), 64)


def keyring_of_other(act, *arguments):
    """What belongs to another space's ids; the control is one of those ids."""
    if inside:
        return keyctl(act, there["other_keyring"], *arguments)

    def as_the_other():
        os.setresuid(*[there["other_id"]] * 3)
        return keyctl(act, there["other_keyring"], *arguments)
    return in_child(as_the_other)


def shared_memory(name):
    number = sum(name.encode())
    libc.shmget.restype = ctypes.c_int
    ctypes.set_errno(0)
    return 0 if libc.shmget(number, 4096, 0) >= 0 else ctypes.get_errno()


def queue(name):
    # The call takes the name without its slash.
    return call(240, text(name.encode()), READ, 0, 0)


def memory_of(pid):
    buffer = ctypes.create_string_buffer(1)
    own = struct.pack("=QQ", ctypes.addressof(buffer), 1)
    far = struct.pack("=QQ", 0x1000, 1)
    return call(310, pid, ctypes.create_string_buffer(own, 16), 1, ctypes.create_string_buffer(far, 16), 1, 0)


def foreign_processes():
    """Kernel threads, by the flag that they alone have: they are the node's."""
    found = 0
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/stat") as file:
                found += bool(int(file.read().rsplit(")", 1)[1].split()[6]) & 0x00200000)
        except OSError:
            pass
    return found


def foreign_keys():
    with open("/proc/keys") as file:
        return sum("logon" in line or "cryptsetup" in line or ".builtin" in line for line in file)


def addresses_of_kernel():
    with open("/proc/kallsyms") as file:
        return sum(int(line.split()[0], 16) != 0 for _, line in zip(range(100), file))


WRITE, READ = os.O_WRONLY, os.O_RDONLY
text = ctypes.c_char_p
tries = {
    # Modules and kernels.
    "init_module": lambda: call(175, 0, 0, text(b"")),
    "finit_module": lambda: call(313, -1, text(b""), 0),
    "delete_module": lambda: call(176, text(b"no_such_module"), 0),
    "kexec_file_load": lambda: call(320, -1, -1, 0, 0, 0),
    "reboot": lambda: call(169, 0xFEE1DEAD, 672274793, 0, 0),
    # Doors of the kernel.
    "bpf": bpf_map,
    "perf_event_open": lambda: call(298, 0, 0, -1, -1, 0),
    "userfaultfd": lambda: call(323, 0),
    "io_uring": lambda: call(425, 8, 0),
    "iopl": lambda: call(172, 3),
    "ioperm": lambda: call(173, 0x80, 1, 1),
    "swapon": lambda: call(167, text(b"/no/such/file"), 0),
    "acct": lambda: call(163, 0),
    "syslog": lambda: call(103, 10, 0, 0),
    "settime": sets_clock,
    # Keys.
    "add_key": lambda: call(248, text(b"user"), text(b"escape"), text(b"x"), 1, -3),
    "request_key": lambda: call(249, text(b"user"), text(b"no_such_key"), 0, 0),
    "key_of_node_described": lambda: keyctl(6, there["node_key"], 0, 0),
    "key_of_node_read": lambda: reads_key(there["node_key"]),
    "key_of_node_linked": lambda: keyctl(8, there["node_key"], -3),
    "key_of_node_given": lambda: keyctl(4, there["node_key"], os.getuid(), -1),
    "keyring_of_node_read": lambda: reads_key(there["node_keyring"]),
    "keyring_of_node_searched": lambda: keyctl(10, there["node_keyring"], text(b"user"), text(b"steading-node"), 0),
    "keyring_of_other_described": lambda: keyring_of_other(6, 0, 0),
    "keyring_of_other_read": lambda: keyring_of_other(11, 0, 0),
    "keyring_of_other_cleared": lambda: keyring_of_other(7),
    # Other processes.
    "ptrace": lambda: call(101, 0x4206, there["pid"], 0, 0),
    "kill": lambda: errno_of(lambda: os.kill(there["pid"], 0)),
    "environ": lambda: opened(f"/proc/{there['pid']}/environ", READ),
    "pidfd_open": lambda: call(434, there["pid"], 0),
    "process_vm_readv": lambda: memory_of(there["pid"]),
    "priority_of_node": lambda: call(140, 0, there["pid"]),
    "setns": lambda: in_child(lambda: errno_of(lambda: os.setns(os.open(f"/proc/{there['pid']}/ns/mnt", READ)))),
    # Mounts and devices.
    "mount_disk": lambda: mounted(b"none", b"ext4"),
    "mount_devtmpfs": lambda: mounted(b"none", b"devtmpfs"),
    "mount_debugfs": lambda: mounted(b"none", b"debugfs"),
    "mount_tracefs": lambda: mounted(b"none", b"tracefs"),
    "mount_cgroup1": lambda: mounted(b"none", b"cgroup", 0, b"none,name=escape"),
    "nested_mount_disk": mounts_disk_in_nested,
    "foreign_id": maps_foreign_id,
    "mknod_disk": lambda: made_node(0o060000, 254, 0),
    "mknod_memory": lambda: made_node(0o020000, 1, 1),
    "mknod_mapper": lambda: made_node(0o020000, 10, 236),
    "open_disk": lambda: opened("/dev/vda", READ),
    "open_mapper": lambda: opened("/dev/mapper/control", READ),
    "open_kmsg": lambda: opened("/dev/kmsg", READ),
    "open_console": lambda: opened("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY),
    "folder_of_node": lambda: opened("/run/steading/volume", READ),
    "sysrq": lambda: opened("/proc/sysrq-trigger", WRITE),
    # Settings and memory of the node.
    "core_pattern": lambda: opened("/proc/sys/kernel/core_pattern", WRITE),
    "modprobe_path": lambda: opened("/proc/sys/kernel/modprobe", WRITE),
    "panic": lambda: opened("/proc/sys/kernel/panic", WRITE),
    "overcommit": lambda: opened("/proc/sys/vm/overcommit_memory", WRITE),
    "file_max": lambda: opened("/proc/sys/fs/file-max", WRITE),
    "kcore": lambda: opened("/proc/kcore", READ),
    "power_state": lambda: opened("/sys/power/state", WRITE),
    "kernel_addresses": addresses_of_kernel,
    # Own limits.
    "hard_limit": raises_hard_limit,
    "real_time": real_time,
    "nice": lambda: in_child(lambda: errno_of(lambda: os.setpriority(os.PRIO_PROCESS, 0, -20))),
    "oom_score": lambda: in_child(lambda: wrote("/proc/self/oom_score_adj", b"-1000")),
    # Sockets.
    "abstract_of_node": lambda: abstract("steading-node"),
    "socket_of_node": lambda: by_path("/run/steading-node.socket"),
    "loopback_of_node": lambda: loopback(7177),
    "abstract_of_other": lambda: of_the_other("net", lambda: abstract("steading-other")),
    "socket_of_other": lambda: by_path(("" if inside else f"/proc/{there['other_pid']}/root") + "/run/steading-other.socket"),
    "loopback_of_other": lambda: of_the_other("net", lambda: loopback(7177)),
    "sockets_listed": sockets_of_others,
    "sockets_asked_for": asks_which_sockets,
    "memory_of_node": lambda: shared_memory("steading-node"),
    "memory_of_other": lambda: of_the_other("ipc", lambda: shared_memory("steading-other")),
    "queue_of_node": lambda: queue("steading-node"),
    "queue_of_other": lambda: of_the_other("ipc", lambda: queue("steading-other")),
    "vsock": lambda: errno_of(lambda: socket.socket(40, socket.SOCK_STREAM)),
    "kernel_crypto": lambda: errno_of(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
    "encrypting_link": encrypting_link,
    # What is seen.
    "kernel_threads": foreign_processes,
    "keys_of_node": foreign_keys,
}
if inside:
    # Of a space alone: the node's root has no such files.
    group = "/sys/fs/cgroup/"
    for file, value in (("memory.max", b"max"), ("cpu.max", b"max"), ("pids.max", b"max"), ("memory.swap.max", b"max")):
        tries["cgroup_" + file] = lambda file=file, value=value: wrote(group + file, value)
    tries["handle"] = lambda: handle_of_volume("/var/lib/containers")
    tries["remount_sys"] = lambda: call(165, text(b"none"), text(b"/sys"), 0, 0x1020, 0) or opened("/sys/power/state", WRITE)
    tries["detach_root"] = lambda: in_child(lambda: call(272, 0x20000) or call(166, text(b"/"), 2))
for name, attempt in tries.items():
    try:
        said = attempt()
    except BaseException as error:
        said = f"broken: {error!r}"
    print(f"{name}={said}", flush=True)
print("tried=all", flush=True)
