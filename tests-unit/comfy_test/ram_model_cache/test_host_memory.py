"""The tighter of the system's and the control groups' views, from fixture files."""

import pytest

from comfy.ram_model_cache.host_memory import (
    GIB,
    HostMemory,
    MemoryView,
    auto_cap_bytes,
    default_headroom_bytes,
    return_freed_memory,
    system_view,
)

SYSTEM = MemoryView(64 * GIB, 40 * GIB)


@pytest.fixture
def host(tmp_path):
    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return HostMemory(tmp_path, lambda: SYSTEM)

    return make


def test_without_control_groups_the_system_decides(host):
    assert host({}).view() == SYSTEM


def test_v2_limit_counts_clean_page_cache_as_available(host):
    stat = f"anon 1\nactive_file {GIB}\ninactive_file {2 * GIB}\nfile_dirty {GIB}\nslab_reclaimable 0\n"
    memory = host(
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{6 * GIB}\n",
            "sys/fs/cgroup/memory.stat": stat,
        }
    )
    assert memory.view() == MemoryView(8 * GIB, 4 * GIB)


def test_v2_tightest_group_on_the_way_up_decides(host):
    memory = host(
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/box/memory.max": "max",
            "sys/fs/cgroup/pod/box/memory.current": GIB,
            "sys/fs/cgroup/pod/memory.max": 4 * GIB,
            "sys/fs/cgroup/pod/memory.current": 3 * GIB,
            "sys/fs/cgroup/pod/memory.stat": "",
        }
    )
    assert memory.view() == MemoryView(4 * GIB, GIB)


def test_v2_high_limit_counts_too(host):
    memory = host(
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": 8 * GIB,
            "sys/fs/cgroup/memory.high": 5 * GIB,
            "sys/fs/cgroup/memory.current": 2 * GIB,
        }
    )
    assert memory.view() == MemoryView(5 * GIB, 3 * GIB)


def test_v1_limit_with_a_path_from_outside_the_container(host):
    memory = host(
        {
            "proc/self/cgroup": "12:cpu:/docker/abc\n7:memory:/docker/abc\n0::/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 10 * GIB,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 9 * GIB,
            "sys/fs/cgroup/memory/memory.stat": f"cache 5\ntotal_inactive_file {3 * GIB}\ntotal_active_file {GIB}\n",
        }
    )
    assert memory.view() == MemoryView(10 * GIB, 5 * GIB)


def test_v1_without_a_limit_is_ignored(host):
    memory = host(
        {
            "proc/self/cgroup": "7:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB,
        }
    )
    assert memory.view() == SYSTEM


def test_usage_above_the_limit_leaves_nothing(host):
    memory = host({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/memory.current": 2 * GIB})
    assert memory.available_bytes() == 0


def test_more_reclaimable_than_used_is_not_more_than_the_limit(host):
    memory = host(
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": 4 * GIB,
            "sys/fs/cgroup/memory.current": GIB,
            "sys/fs/cgroup/memory.stat": f"inactive_file {3 * GIB}",
        }
    )
    assert memory.available_bytes() == 4 * GIB


def test_damaged_files_are_ignored(host):
    memory = host(
        {"proc/self/cgroup": "nonsense\n0::/../../other\n", "sys/fs/cgroup/memory.max": "what", "sys/fs/cgroup/memory.stat": "a b c"}
    )
    assert memory.view() == SYSTEM


def test_a_changed_limit_is_seen(host):
    memory = host({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": 8 * GIB, "sys/fs/cgroup/memory.current": 0})
    assert memory.available_bytes() == 8 * GIB
    assert host({"sys/fs/cgroup/memory.max": 4 * GIB}).available_bytes() == 4 * GIB
    assert memory.total_bytes() == 4 * GIB


def test_the_view_of_this_machine_is_plausible():
    view = HostMemory().view()
    assert 0 < view.available_bytes <= system_view().total_bytes


@pytest.mark.parametrize("total, headroom", [(16 * GIB, 2 * GIB), (100 * GIB, 5 * GIB)])
def test_headroom(total, headroom):
    assert default_headroom_bytes(total) == headroom


@pytest.mark.parametrize("free, cap", [(0, 0), (64 * GIB, 0), (65 * GIB, 65 * GIB // 4), (400 * GIB, 32 * GIB)])
def test_auto_cap(free, cap):
    assert auto_cap_bytes(free) == cap


def test_freed_memory_is_returned_without_error():
    assert return_freed_memory() in (True, False)
