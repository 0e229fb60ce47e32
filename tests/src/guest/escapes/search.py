"""Looks for a key in every place that root inside can read: `found=PLACE` each, then `looked=COUNT`.

Its halves come apart as arguments, in hex, so that no line of this process's own arguments or memory holds the whole
key before it is put together; what this process holds is left out by its number.
"""
import base64, os, sys

key = bytes.fromhex(sys.argv[1]) + bytes.fromhex(sys.argv[2])
# A part of it is as good as a find: half of it, as bytes, as hex, as base64 at each offset.
half = key[8:40]
needles = [half, half.hex().encode(), half.hex().upper().encode()]
needles += [base64.b64encode(key[start:])[4:40] for start in range(3)]
MOST = 32 << 20
looked = 0


def look(place, bytes_):
    global looked
    looked += 1
    # One after the other: a pattern of all of them is many times slower.
    if any(needle in bytes_ for needle in needles):
        print(f"found={place}", flush=True)


def look_file(path):
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            parts, left = [], MOST
            while left > 0 and (part := os.read(file, 1 << 20)):
                parts.append(part)
                left -= len(part)
        finally:
            os.close(file)
        look(path, b"".join(parts))
    except OSError:
        pass


def look_memory(number):
    try:
        with open(f"/proc/{number}/maps") as maps, open(f"/proc/{number}/mem", "rb", 0) as memory:
            for line in maps:
                words = line.split()
                # What comes from a file is read there; what a process wrote into memory is private and writable.
                if "w" not in words[1] or words[-1] in ("[vvar]", "[vsyscall]"):
                    continue
                first, last = (int(part, 16) for part in words[0].split("-"))
                try:
                    memory.seek(first)
                    look(f"memory of {number} at {words[0]}", memory.read(min(last - first, MOST)))
                except (OSError, OverflowError, ValueError):
                    pass
    except OSError:
        pass


own = {str(os.getpid()), "self", "thread-self"}
for number in os.listdir("/proc"):
    if number.isdigit() and number not in own:
        for name in ("environ", "cmdline", "stack", "auxv", "mountinfo", "status"):
            look_file(f"/proc/{number}/{name}")
        look_memory(number)
    elif not number.isdigit() and number not in own and os.path.isfile(f"/proc/{number}"):
        # Streams that never end, and the kernel's memory, are no files to read whole: kcore is tried all the same.
        if number not in ("kmsg",):
            look_file(f"/proc/{number}")
for top in ("/", "/sys/module", "/sys/block", "/sys/devices/virtual", "/proc/sys/kernel"):
    for folder, folders, files in os.walk(top):
        if top == "/":
            # The base is older than any key; /proc and /sys are looked at above and below.
            skipped = {"/": ("proc", "sys", "usr", "lib", "lib64", "bin", "sbin")}.get(folder, ())
            folders[:] = [name for name in folders if name not in skipped]
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path) and (os.path.isfile(path)):
                look_file(path)
print(f"looked={looked}", flush=True)
