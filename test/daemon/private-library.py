# Runs a program as another user, for whom alone a file system (FUSE) holds a library: not even root may look into it, as
# with the mounts of AppImages.
#
#   private-library.py LIBRARY MOUNT-POINT PROGRAM...     the mount is seen by the program alone
import ctypes
import os
import signal
import stat
import struct
import sys

library, place, command = sys.argv[1], sys.argv[2], sys.argv[3:]
name, user = os.path.basename(library).encode(), 65534
with open(library, 'rb') as file:
    content = file.read()
libc = ctypes.CDLL(None, use_errno=True)
root_node, library_node = 1, 2


def check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def attributes(node):
    mode = stat.S_IFDIR | 0o755 if node == root_node else stat.S_IFREG | 0o755
    size = 0 if node == root_node else len(content)
    return struct.pack('<6Q10I', node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, user, user, 0, 4096, 0)


# The answers to the requests of linux/fuse.h, by number; an errno value where there is none.
def initialize(node, body):
    return struct.pack('<4I2H2I2H8I', 7, 31, 65536, 0, 8, 8, 65536, 1, 16, 0, *[0] * 8)


def look_up(node, body):
    if body.rstrip(b'\0') != name:
        return 2
    return struct.pack('<4Q2I', library_node, 0, 3600, 3600, 0, 0) + attributes(library_node)


def read(node, body):
    _, offset, size = struct.unpack_from('<QQI', body)
    return content[offset:offset + size]


answers = {
    1: look_up,
    3: lambda node, body: struct.pack('<Q2I', 3600, 0, 0) + attributes(node),
    14: lambda node, body: struct.pack('<Q2I', 0, 2, 0),
    15: read,
    18: lambda node, body: b'',
    25: lambda node, body: b'',
    26: initialize,
    27: lambda node, body: struct.pack('<Q2I', 0, 0, 0),
    29: lambda node, body: b'',
}
unanswered = (2, 36, 42)


def serve(device):
    while True:
        request = os.read(device, 1 << 17)
        _, number, unique, node = struct.unpack_from('<2I2Q', request)
        if number in unanswered:
            continue
        answer = answers.get(number, lambda *_: 38)(node, request[40:])
        body, error = (b'', -answer) if isinstance(answer, int) else (answer, 0)
        os.write(device, struct.pack('<IiQ', 16 + len(body), error, unique) + body)


clone_newns, ms_rec, ms_private, pr_set_pdeathsig = 0x20000, 0x4000, 0x40000, 1
check(libc.unshare(clone_newns), 'unshare')
check(libc.mount(b'none', b'/', None, ms_rec | ms_private, None), 'mount /')
device = os.open('/dev/fuse', os.O_RDWR)
options = f'fd={device},rootmode=40000,user_id={user},group_id={user}'
check(libc.mount(b'private', place.encode(), b'fuse', 0, options.encode()), 'mount')
if os.fork() == 0:
    check(libc.prctl(pr_set_pdeathsig, signal.SIGKILL), 'prctl')
    os.closerange(0, 3)
    serve(device)
os.close(device)
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
os.execv(command[0], command)
