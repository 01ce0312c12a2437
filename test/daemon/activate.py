# Starts a server as systemd does: holds its socket, starts it when a client comes, hears what it has to say.
#
#   activate.py SOCKET NOTIFY-SOCKET COMMAND...     prints: listening; started PID; notified PID STATE; ended PID STATUS
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading

path, notify, command = sys.argv[1], sys.argv[2], sys.argv[3:]
os.umask(0o177)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(path)
listener.listen(64)
heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
heard.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
heard.bind('\0' + notify[1:] if notify.startswith('@') else notify)
child = None


def say(*words):
    os.write(1, (' '.join(str(word) for word in words) + '\n').encode())


def hear():
    while True:
        text, extra, _, _ = heard.recvmsg(4096, 64)
        pid = struct.unpack('iII', extra[0][2][:12])[0]
        say('notified', pid, text.decode().strip())


def end(*_):
    if child:
        child.kill()
    os._exit(0)


threading.Thread(target=hear, daemon=True).start()
signal.signal(signal.SIGTERM, end)
os.dup2(listener.fileno(), 3)
os.umask(0o022)
say('listening')
environment = dict(os.environ, LISTEN_FDS='1', NOTIFY_SOCKET=notify)
while True:
    select.select([listener], [], [])
    words = ['sh', '-c', 'LISTEN_PID=$$ exec "$@"', 'sh', *command]
    child = subprocess.Popen(words, pass_fds=(3,), env=environment)
    say('started', child.pid)
    say('ended', child.pid, child.wait())
