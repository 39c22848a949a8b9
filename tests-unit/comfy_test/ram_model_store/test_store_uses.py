"""The notes of uses: what is written is read, few are kept, and damage is passed over."""

import os

from store_parts import key_of

from comfy.ram_model_store import uses
from comfy.ram_model_store.uses import Found, Use


def use(number, found=Found.STORE):
    return Use(key_of(str(number)).name, found, float(number), number, number / 8)


def test_uses_are_read_in_order(folder):
    wanted = [use(1, Found.NOWHERE), use(2), use(1, Found.SERVER)]
    with folder.opened() as opened:
        assert uses.read(opened) == []
        uses.note(opened, wanted[:1])
        uses.note(opened, [])
        uses.note(opened, wanted[1:])
        assert uses.read(opened) == wanted


def test_of_very_many_the_newest_stay(folder):
    most = uses.MOST_BYTES // uses.RECORD.size
    with folder.opened() as opened:
        uses.note(opened, [use(number) for number in range(most)])
        assert len(uses.read(opened)) == most
        uses.note(opened, [use(most)])
        kept = uses.read(opened)
        assert len(kept) == most // 2 and kept[-1] == use(most) and kept[0] == use(most - most // 2 + 1)
        assert sorted(os.listdir(opened.descriptor)) == [uses.NAME]


def test_a_record_that_was_cut_short_and_nonsense_do_no_harm(folder):
    with folder.opened() as opened:
        uses.note(opened, [use(1)])
        with open(os.path.join(folder.path, uses.NAME), "ab") as file:
            file.write(b"half a record")
        assert uses.read(opened) == [use(1)]
        uses.note(opened, [use(2)])
        assert uses.read(opened) == [use(1), use(2)]
        with open(os.path.join(folder.path, uses.NAME), "ab") as file:
            file.write(b"\xff" * uses.RECORD.size)
        assert uses.read(opened) == [use(1), use(2)]


def test_a_link_in_its_place_goes_and_is_not_followed(folder, memory_path):
    (memory_path / "secret").write_bytes(b"untouched")
    with folder.opened() as opened:
        os.symlink(memory_path / "secret", uses.NAME, dir_fd=opened.descriptor)
        assert uses.read(opened) == []
        uses.note(opened, [use(1)])
        assert uses.read(opened) == [use(1)]
    assert (memory_path / "secret").read_bytes() == b"untouched"
