"""A real memory control group (v1 or v2), where the machine lets this process make one."""

import contextlib
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
LIMIT_BYTES = 600 << 20
CODE = """
import os, pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
from comfy.ram_model_cache.host_memory import HostMemory
before = HostMemory().view()
held = bytearray(os.urandom(1 << 20) * 200)
after = HostMemory().view()
print(before.total_bytes, before.available_bytes, after.available_bytes)
"""


@pytest.fixture
def group():
    """(folder, name of the file that takes the limit) of a new group; removed afterwards."""
    mounted = pathlib.Path("/sys/fs/cgroup")
    version_1 = (mounted / "memory").is_dir()
    folder = (mounted / "memory" if version_1 else mounted) / f"ram-cache-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield folder, "memory.limit_in_bytes" if version_1 else "memory.max"
    finally:
        for _ in range(1000):  # the kernel may take a moment to see that the last process left
            with contextlib.suppress(OSError):
                folder.rmdir()
                break


def test_limit_of_a_real_group_is_seen_and_use_is_subtracted(group):
    folder, limit = group
    try:
        (folder / limit).write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no memory limit can be set here: {error}")
    done = subprocess.run([sys.executable, "-c", CODE, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    total, before, after = map(int, done.stdout.split())
    assert total == LIMIT_BYTES
    assert 150 << 20 < before - after < 260 << 20
