"""A node pack that limits how fast model files are read, as a slow disk or a network volume does.

Copied into a server's custom_nodes by the benchmarks. READ_LIMIT_MB_S is the rate; READ_LIMIT_OF says of what: ``file``, each open file by
itself, as volumes that limit every connection do, or ``disk``, all together, in the order in which reads come.
"""

import os
import threading
import time
from collections import defaultdict

_preadv = os.preadv


class Line:
    """What has a rate of its own."""

    def __init__(self, bytes_per_s):
        self._bytes_per_s, self._lock, self._free_s = bytes_per_s, threading.Lock(), 0.0

    def carry(self, count):
        """Return when *count* bytes have come through, after those before."""
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + count / self._bytes_per_s
            until_s = self._free_s
        time.sleep(max(0.0, until_s - time.monotonic()))


def limited(rate, by_file):
    """``os.preadv`` at *rate*. Calls with flags look at the page cache only and pass."""
    lines = defaultdict(lambda: Line(rate))

    def preadv(file, buffers, offset, *flags):
        count = _preadv(file, buffers, offset, *flags)
        if not flags and count > 0:
            lines[file if by_file else "disk"].carry(count)
        return count

    return preadv


os.preadv = limited(float(os.environ["READ_LIMIT_MB_S"]) * 1e6, os.environ["READ_LIMIT_OF"] == "file")
NODE_CLASS_MAPPINGS = {}
