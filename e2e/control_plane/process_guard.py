"""Runs a command that the kernel kills when its parent dies: `python process_guard.py PARENT_PID COMMAND...`.

Started with `-I -S`, so it costs some 20 ms, and it replaces itself with the command, which so has the pid that the
parent knows. It is used by processes.py alone and imports nothing of this package.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above took effect.
    if os.getppid() == parent:
        os.execv(command[0], command)
