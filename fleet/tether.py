"""``python -m fleet.tether PARENT COMMAND…``: becomes COMMAND, which the system kills when the process PARENT dies, however that dies.

Linux only (``prctl(PR_SET_PDEATHSIG)``, which survives ``execv``). The thread of PARENT that started it must live as long as PARENT.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tether_to(parent: int) -> None:
    """Have this process killed when *parent*, its parent, dies. Raises ``OSError`` where the system cannot do that."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # it died before


def main(arguments: list[str]) -> None:
    """Become the command in *arguments*."""
    tether_to(int(arguments[0]))
    os.execv(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
