"""Which disks files are read from side by side."""

import os
import threading

import pytest

from custom_nodes.keepwarm.preload.disks import DiskTurns


@pytest.fixture
def disks(tmp_path):
    """Makes the system's folder of block devices: ``{device: (disk, what it says)}``."""

    def make(**devices):
        blocks = tmp_path / "sys" / "dev" / "block"
        blocks.mkdir(parents=True)
        for number, (folder, text) in devices.items():
            disk = tmp_path / "devices" / folder
            disk.mkdir(parents=True)
            if text is not None:
                base = disk if "/" not in folder else disk.parent
                (base / "queue").mkdir()
                (base / "queue" / "rotational").write_text(text)
            (blocks / number.removeprefix("d").replace("_", ":")).symlink_to(disk)
        return DiskTurns(str(tmp_path))

    return make


def test_a_disk_and_its_partitions_are_known_as_rotating(disks):
    found = disks(d8_0=("sda", "1\n"), d259_1=("nvme0n1/p1", "0\n"), d8_17=("sdb/sdb1", "1\n"), d0_30=("network", None))
    assert [found.is_rotating(os.makedev(*numbers)) for numbers in ((8, 0), (259, 1), (8, 17), (0, 30), (7, 7))] == [
        True,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(("text", "together"), [("1", False), ("0", True)])
def test_only_rotating_disks_have_one_reader_at_a_time(disks, tmp_path, text, together):
    status = os.stat(tmp_path)
    turns = disks(**{f"d{os.major(status.st_dev)}_{os.minor(status.st_dev)}": ("disk", text)})
    inside, may_end = threading.Event(), threading.Event()

    def read():
        with turns.turn([str(tmp_path)]):
            inside.set()
            may_end.wait(10)

    with turns.turn([str(tmp_path), str(tmp_path / "gone")]):
        reader = threading.Thread(target=read)
        reader.start()
        assert inside.wait(5 if together else 0.2) is together
    assert inside.wait(5)
    may_end.set()
    reader.join()
