"""In what state a file is: device, inode, size, time of the last write and of the last change.

Programs cannot set the last one, so a file with forged times shows. It also moves when permissions or the number of links do, which
then counts as a change.
"""

import os
import time

State = tuple[int, int, int, int, int]

# A file changed this shortly ago could change again without its times showing it: clocks of file systems tick every 1 to 10 ms.
TICK_S = 0.02


def state_of(status: os.stat_result) -> State:
    """The state that *status* tells."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def file_state(path: str) -> State | None:
    """The state of the file at *path* now, links followed; None when it cannot be looked at. Blocks for one ``stat``."""
    try:
        return state_of(os.stat(path))
    except (OSError, ValueError):
        return None


def unsettled_s(state: State | None) -> float:
    """In how many seconds another change of the file is sure to give another state; 0 when it is so now."""
    if state is None:
        return 0.0
    age_s = time.time() - state[4] / 1e9
    return TICK_S - age_s if 0 <= age_s < TICK_S else 0.0
