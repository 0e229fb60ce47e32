"""Everything at once, as root of a space: each act in a process of its own, begun again when it dies.

What was met is said by the names in /root/met.
"""
import ctypes, errno, mmap, os, resource, signal, socket, time

libc = ctypes.CDLL(None, use_errno=True)
for what in ("ENOSPC", "EMFILE", "EAGAIN", "watches", "flooded", "killed"):
    os.makedirs("/root/ahead", exist_ok=True)
    os.makedirs("/root/met", exist_ok=True)
    open("/root/ahead/" + what, "w").close()


def met(what):
    # A new name takes no open file, and no room on a full disk.
    try:
        os.rename("/root/ahead/" + what, "/root/met/" + what)
    except OSError:
        pass


def memory():
    # When the others have what they want: what follows throws them out of memory again and again.
    time.sleep(5)
    held = []
    while True:
        held.append(b"x" * (16 << 20))


def files():
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    held = []
    while True:
        try:
            held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            met("EMFILE")
            for file in held[::2]:
                os.close(file)
            held = held[1::2]


def watches():
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    while True:
        folders = [path for path, _, _ in zip_walk(10)]
        while True:
            notify = libc.inotify_init1(0)
            if notify < 0:
                met("watches")
                break
            for folder in folders:
                libc.inotify_add_watch(notify, folder.encode(), 0xFFF)
        time.sleep(5)


def zip_walk(most):
    for number, found in enumerate(os.walk("/usr")):
        if number == most:
            return
        yield found


def flood():
    # A new connection for the table with each datagram, and full packets in between.
    while True:
        stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for port in range(1024, 1034):
            try:
                stream.sendto(bytes(1400), ("198.51.100.1", port))
            except OSError:
                pass
        stream.close()
        met_once("flooded")


def full():
    while True:
        try:
            with open("/root/full", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                met("ENOSPC")
        os.sync()
        try:
            os.unlink("/root/full")
        except OSError:
            pass


def base():
    # What all share, read again and again, thrown out of memory in between.
    paths = []
    for folder, _, names in os.walk("/usr/lib/x86_64-linux-gnu"):
        paths += [os.path.join(folder, name) for name in names]
    while True:
        for path in paths:
            try:
                file = os.open(path, os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                while os.read(file, 1 << 20):
                    pass
                os.close(file)
            except OSError:
                pass


def small():
    # Little by little, each on the disk before the next.
    while True:
        try:
            file = os.open("/root/small", os.O_CREAT | os.O_WRONLY | os.O_DSYNC)
            for place in range(2000):
                os.pwrite(file, b"x" * 4096, place * 4096)
            os.close(file)
        except OSError:
            pass


def bomb():
    # Until there may be no more, and then some seconds of trying; then all of it goes, so that other acts find a place.
    children, end = [], None
    while end is None or time.monotonic() < end:
        try:
            child = os.fork()
        except OSError:
            met_once("EAGAIN")
            end = end or time.monotonic() + 5
            continue
        if child == 0:
            signal.pause()
            os._exit(0)
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


told = set()


def met_once(what):
    if what not in told:
        told.add(what)
        met(what)


def own():
    # From the own disk, past the cache: all of it is decrypted each time.
    buffer = mmap.mmap(-1, 1 << 20)
    file = os.open("/root/mine", os.O_RDONLY | os.O_DIRECT)
    while True:
        for place in range(0, 8 << 20, 1 << 20):
            os.preadv(file, [buffer], place)


# Before the disk is full.
with open("/root/mine", "wb") as mine:
    mine.write(bytes(8 << 20))
    os.fsync(mine.fileno())
ACTS = (own, files, watches, flood, flood, full, small, base, memory, bomb)
running = {}
while True:
    for number, act in enumerate(ACTS):
        if number in running:
            continue
        try:
            child = os.fork()
        except OSError:
            continue
        if child == 0:
            try:
                act()
            finally:
                os._exit(0)
        running[number] = child
    time.sleep(0.1)
    for number, child in list(running.items()):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            del running[number]
            if os.WIFSIGNALED(status):
                met_once("killed")
