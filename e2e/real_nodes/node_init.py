"""The first process of a node: `python -I -S node_init.py SETTINGS.json`, in namespaces of its own.

It puts a file system of the node's own under it, then starts and signals processes as it is told over a socket, and
reaps whatever ends. When it ends, the kernel ends everything in the node. Standard library only; nothing is imported
after the host's files are out of sight.

The file system is one in memory. Of the host it has read-only /usr, /etc and what the settings name, and /dev; /var
is the node's folder `var`, so what kubelet, containerd and hostPath volumes write stays with the node. Sysctls that
are one for the whole kernel are files of the node, so that a write to them stays there too.

A request is one line of JSON: {"start": NAME, "command": [...], "log": PATH}, {"signal": NAME, "number": N} or
{"state": true}. The answer is {"running": [NAME, ...]} or {"error": TEXT}.
"""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Any, NoReturn

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 1, 32, 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
HOST_FOLDERS = ("usr", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Kubelet writes the first five; the others are what tuning agents write.
KERNEL_WIDE = (
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "vm/max_map_count",
    "vm/swappiness",
    "kernel/pid_max",
    "fs/inotify/max_user_watches",
    "fs/inotify/max_user_instances",
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    values = [value.encode() if value else None for value in (source, target, kind, data)]
    if LIBC.mount(values[0], values[1], values[2], ctypes.c_ulong(flags), values[3]):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} on {target}: {os.strerror(number)}")


def bind(source: str, target: str, read_only: bool = False, below: int = MS_REC) -> None:
    os.makedirs(target, exist_ok=True)
    mount(source, target, flags=MS_BIND | below)
    if read_only:
        mount(None, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def enter_file_system(folder: str, readable: list[str]) -> None:
    """Builds the node's file system below the folder and makes it the root of this process."""
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    root = f"{folder}/root"
    os.makedirs(root, exist_ok=True)
    mount("node", root, "tmpfs", data="mode=755")
    for name in HOST_FOLDERS:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")
        elif os.path.isdir(f"/{name}"):
            bind(f"/{name}", f"{root}/{name}", read_only=True)
    for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("run", "tmpfs"), ("tmp", "tmpfs")):
        os.makedirs(f"{root}/{name}")
        mount(name, f"{root}/{name}", kind)
    bind("/dev", f"{root}/dev")
    for name in ("lib", "log", "tmp", "cache"):
        os.makedirs(f"{folder}/var/{name}", exist_ok=True)
    if not os.path.islink(f"{folder}/var/run"):
        os.symlink("/run", f"{folder}/var/run")
    bind(f"{folder}/var", f"{root}/var", below=0)
    # Not what is mounted below it: that is the tree which is being built.
    bind(folder, root + folder, below=0)
    for path in readable:
        bind(path, root + path, read_only=True)
    bind("/sys/fs/cgroup", f"{root}/sys/fs/cgroup")
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True, env={"PATH": PATH})
    if LIBC.umount2(b".", MNT_DETACH):
        raise OSError(ctypes.get_errno(), "the host's file system cannot be left")
    os.chdir("/")
    # Kubelet shares mounts with containers that ask for it.
    mount(None, "/", flags=MS_REC | MS_SHARED)


def hide(path: str, text: str) -> None:
    """Puts a file with the text, kept in the node's memory, over the path."""
    cover = "/run/node" + path
    os.makedirs(os.path.dirname(cover), exist_ok=True)
    with open(cover, "w") as file:
        file.write(text)
    mount(cover, path, flags=MS_BIND)


def hide_kernel_wide(identity: dict[str, str]) -> None:
    """Covers the sysctls of the whole kernel, and what tells one machine, or one start of it, from another."""
    for key in KERNEL_WIDE:
        path = f"/proc/sys/{key}"
        if os.path.exists(path):
            with open(path) as file:
                hide(path, file.read())
    for path, text in identity.items():
        if os.path.exists(path):
            hide(path, text + "\n")


class Processes:
    """What was started by name, and everything that has lost its parent."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {}

    def start(self, name: str, command: list[str], log: str) -> None:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        folder = os.path.dirname(command[0])
        environment = {"PATH": f"{folder}:{PATH}", "HOME": "/var/lib", "TMPDIR": "/var/tmp"}
        self.running[name] = os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True)

    def signal(self, name: str, number: int) -> None:
        if name in self.running:
            os.kill(self.running[name], number)

    def reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.running = {name: other for name, other in self.running.items() if other != pid}


def answer(processes: Processes, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if "start" in request:
            processes.start(request["start"], request["command"], request["log"])
        elif "signal" in request:
            processes.signal(request["signal"], request["number"])
    except OSError as error:
        return {"error": str(error)}
    return {"running": sorted(processes.running)}


def serve(server: socket.socket) -> NoReturn:
    """Answers requests, one per connection, and reaps, for ever."""
    processes = Processes()
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([server.fileno(), ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
        processes.reap()
        if server.fileno() in ready:
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as stream:
                stream.write(json.dumps(answer(processes, json.loads(stream.readline()))) + "\n")


def main() -> NoReturn:
    with open(sys.argv[1]) as file:
        settings = json.load(file)
    # /proc is still the host's: it tells the pid by which the host knows us.
    with open(settings["pid"], "w") as file:
        file.write(os.readlink("/proc/self"))
    socket.sethostname(settings["name"])
    server = socket.socket(socket.AF_UNIX)
    enter_file_system(settings["folder"], settings["readable"])
    hide_kernel_wide(settings["identity"])
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    server.bind(settings["socket"])
    server.listen()
    serve(server)


if __name__ == "__main__":
    main()
