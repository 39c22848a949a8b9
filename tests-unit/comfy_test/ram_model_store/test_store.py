"""The store: what is put in is found, by others too; what is wrong goes; and there is never more than the cap."""

import errno
import gc
import os
import stat
import threading

import pytest
import torch
from store_parts import SIDE, held, key_of, put, tensors_of

from comfy.ram_model_store import locks, uses
from comfy.ram_model_store.description import check, describe
from comfy.ram_model_store.folder import PART_NAME, StoreFolder, StoreRefused
from comfy.ram_model_store.part_format import HEAD, PAGE_BYTES
from comfy.ram_model_store.room import FULL
from comfy.ram_model_store.store import RamModelStore
from comfy.ram_model_store.uses import Found

MIB = 1 << 20
PART_BYTES = 4 * SIDE * SIDE + 2 * SIDE


@pytest.fixture
def store(folder):
    """A store of 100 MiB, whose books are right at the end."""
    made = RamModelStore(folder, 100 * MIB)
    yield made
    assert check(made) == []


def files(store):
    """{name: path} of what lies in it."""
    return {name: os.path.join(store.folder.path, name) for name in os.listdir(store.folder.path) if PART_NAME.fullmatch(name)}


def test_what_is_put_in_is_found_by_the_next_store_too(store, folder):
    key, tensors = key_of("one"), tensors_of(1)
    assert store.find(key) is None
    assert put(store, key, tensors, seconds=2.5)[0]
    part = RamModelStore(folder, 100 * MIB).find(key)
    assert part is not None and held(part, tensors) and part.head.seconds == 2.5
    assert part.table.sources[0].metadata == {"of": "tests"} and part.table.label == "model of one"
    path = files(store)[key.name]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert store.find(key_of("two")) is None


def test_tensors_are_views_of_one_mapping_of_which_nothing_is_copied(store):
    key, tensors = key_of("one"), tensors_of(1)
    put(store, key, tensors)
    part = store.find(key)
    found = part.tensors(0, ["a", "b"], None)
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()
    assert store.holds(found["a"].data_ptr(), 1) and not store.holds(tensors["a"].data_ptr(), 1)
    assert part.tensors(0, ["a"], torch.float16) is None, "it lies there in another dtype"
    assert not found["a"].is_inference()


@pytest.mark.parametrize("who", ["writer", "reader"])
def test_what_one_process_writes_in_place_stays_its_own(store, who):
    key, tensors = key_of("one"), tensors_of(1)
    _, own = put(store, key, tensors)
    first, second = store.find(key), store.find(key)
    changed = own if who == "writer" else first.tensors(0, list(tensors), None)
    changed["a"].add_(1)
    assert torch.equal(changed["a"], tensors["a"] + 1)
    assert held(second, tensors) and held(store.find(key), tensors)
    assert held(first, tensors) is (who == "writer")


def test_in_place_writes_between_reading_and_finishing_do_not_reach_the_file(store):
    key, tensors = key_of("one"), tensors_of(1)
    from comfy.ram_model_store.mapping import dtype_name
    from comfy.ram_model_store.part_format import SourceFacts
    from comfy.ram_model_store.writing import copy_into

    writer = store.begin(key, PART_BYTES)
    copies = copy_into(writer, 0, tensors)
    copies["a"].zero_()
    facts = SourceFacts("f", {}, {name: (dtype_name(one.dtype), tuple(one.shape)) for name, one in tensors.items()})
    assert store.finish(writer, key, [facts], 1.0) and not copies["a"].any()
    assert held(store.find(key), tensors)


def test_a_replaced_file_never_meets_the_old_part_and_the_old_one_goes(store):
    put(store, key_of("one", "first"), tensors_of(1))
    put(store, key_of("one", "first", "other options"), tensors_of(3))
    put(store, key_of("two", "first"), tensors_of(4))
    assert store.find(key_of("one", "second")) is None
    put(store, key_of("one", "second"), tensors_of(2))
    assert set(files(store)) == {key_of("one", "second").name, key_of("two", "first").name}
    assert held(store.find(key_of("one", "second")), tensors_of(2))


def _truncate(path):
    os.truncate(path, os.path.getsize(path) // 2)


def _truncate_table(path):
    os.truncate(path, os.path.getsize(path) - 1)


def _empty(path):
    os.truncate(path, 0)


def _flip(position):
    def flip(path):
        with open(path, "r+b") as file:
            file.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))

    return flip


def _foreign_version(path):
    with open(path, "r+b") as file:
        page = file.read(PAGE_BYTES)
        file.seek(0)
        file.write(HEAD.pack(*[99 if number == 1 else value for number, value in enumerate(HEAD.unpack(page[: HEAD.size]))]))


def _link(path):
    os.rename(path, f"{path}.there")
    os.symlink(f"{path}.there", path)


def _pipe(path):
    os.unlink(path)
    os.mkfifo(path, 0o600)


def _readable_by_all(path):
    os.chmod(path, 0o644)


def _second_name(path):
    os.link(path, f"{path}.there")


DAMAGE = [
    _truncate,
    _truncate_table,
    _empty,
    _flip(0),
    _flip(20),
    _flip(40),
    _flip(-2),
    _foreign_version,
    _link,
    _pipe,
    _readable_by_all,
    _second_name,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=[one.__name__ + str(number) for number, one in enumerate(DAMAGE)])
def test_what_is_not_in_order_goes_with_one_warning_and_can_be_put_in_again(folder, caplog, damage):
    store = RamModelStore(folder, 100 * MIB)
    key, tensors = key_of("one"), tensors_of(1)
    put(store, key, tensors)
    damage(files(store)[key.name])
    assert store.find(key) is None
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "model of one" in warnings[0] and "removed" in warnings[0]
    assert files(store) == {} and store.find(key) is None and store.counters()["damaged"] == 1
    assert put(store, key, tensors)[0] and held(store.find(key), tensors)


def test_a_file_of_another_owner_goes(store, monkeypatch, caplog):
    key = key_of("one")
    put(store, key, tensors_of(1))
    real = os.fstat

    def of_another(descriptor):
        status = real(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size > PAGE_BYTES:
            return os.stat_result([*status[:4], status.st_uid + 1, *status[5:]])
        return status

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", of_another)
        assert store.find(key) is None
    assert "belongs to user" in caplog.text and files(store) == {}


def test_another_part_under_its_name_is_not_taken_for_it(store):
    one, two = key_of("one"), key_of("two")
    put(store, one, tensors_of(1))
    os.rename(files(store)[one.name], os.path.join(store.folder.path, two.name))
    assert store.find(two) is None and files(store) == {}


def test_there_is_never_more_than_the_cap_and_what_was_used_least_goes(folder):
    store = RamModelStore(folder, 5 * MIB)
    keys = [key_of(str(number)) for number in range(3)]
    for number, key in enumerate(keys[:2]):
        assert store.find(key) is None
        assert put(store, key, tensors_of(number, 700))[0]
    for _ in range(3):
        assert store.find(keys[0]) is not None
    gc.collect()
    assert store.find(keys[2]) is None
    is_in, _ = put(store, keys[2], tensors_of(2, 700))
    assert keys[0].name in files(store) and len(files(store)) == 2 and check(store) == []
    assert (keys[2].name in files(store)) is is_in
    assert put(store, key_of("huge"), tensors_of(9, 1200))[0] is False and store.counters()["refusals"] >= 1


def test_parts_being_written_count_against_the_cap(folder, caplog):
    store = RamModelStore(folder, 5 * MIB)
    writer = store.begin(key_of("one"), 3 * MIB)
    caplog.set_level("INFO")
    assert store.begin(key_of("two"), 3 * MIB) is None and "not stored" in caplog.text
    store.abandon(writer)
    second = store.begin(key_of("two"), 3 * MIB)
    assert second is not None
    store.abandon(second)
    store.abandon(second)
    assert check(store) == [] and files(store) == {}


def test_a_full_file_system_makes_room_of_what_nobody_uses_and_else_refuses(store, monkeypatch, caplog):
    caplog.set_level("INFO")
    put(store, key_of("unused"), tensors_of(1))
    put(store, key_of("used"), tensors_of(2))
    part = store.find(key_of("used"))
    gc.collect()
    real = os.statvfs(store.folder.path)
    free = [0]
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([*real[:4], free[0] // real.f_frsize, *real[5:]]))
    assert store.begin(key_of("new"), PART_BYTES) is None
    assert FULL in caplog.text and set(files(store)) == {key_of("used").name}
    assert held(part, tensors_of(2))


def test_where_room_ends_half_way_the_rest_comes_from_elsewhere_and_nothing_is_left(store, monkeypatch, caplog):
    key = key_of("one")
    writer = store.begin(key, MIB)
    first = writer.block(MIB)
    first.tensor.fill_(7)
    writer.filled(first, [])

    def full(descriptor, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert writer.block(MIB + MIB // 16) is None and writer.block(1) is None
    assert store.finish(writer, key, [], 1.0) is False
    assert "could not be stored" in caplog.text and "No space left" in caplog.text
    assert os.listdir(store.folder.path) == [locks.NAME] and int(first.tensor.sum()) == 7 * MIB


def test_a_part_that_takes_much_more_than_was_said_does_not_break_the_cap(store, caplog):
    writer = store.begin(key_of("one"), MIB)
    assert writer.block(8 * MIB) is None
    assert store.finish(writer, key_of("one"), [], 1.0) is False and "more than its loader said" in caplog.text


def test_too_little_ram_is_no_reason_to_be_killed(folder, caplog):
    caplog.set_level("INFO")
    store = RamModelStore(folder, 100 * MIB, available_bytes=lambda: MIB)
    assert store.begin(key_of("one"), 2 * MIB) is None and "too little RAM" in caplog.text


def test_pressure_takes_what_nobody_uses_first_and_then_what_this_server_only_keeps(store):
    put(store, key_of("unused"), tensors_of(1))
    put(store, key_of("mine"), tensors_of(2))
    gc.collect()
    part = store.find(key_of("mine"))
    assert store.relieve(0) == 0 and len(files(store)) == 2
    assert store.relieve(1) > PART_BYTES and set(files(store)) == {key_of("mine").name}
    assert store.relieve(1) == 0 and files(store) == {}, "its memory goes when the last tensor does"
    assert held(part, tensors_of(2)) and store.relieve(1) == 0
    shown = describe(store)["mapped"]
    assert [(one["model"], one["in_store"]) for one in shown] == [("model of mine", False)]
    del part
    gc.collect()
    assert describe(store)["mapped"] == []


def test_clearing_leaves_what_other_processes_use(store, folder):
    put(store, key_of("mine"), tensors_of(1))
    put(store, key_of("theirs"), tensors_of(2))
    gc.collect()
    mine = store.find(key_of("mine"))
    theirs = RamModelStore(folder, 100 * MIB).find(key_of("theirs"))
    assert store.clear("asked") > 0 and set(files(store)) == {key_of("theirs").name}
    assert held(mine, tensors_of(1)) and held(theirs, tensors_of(2))


def test_leftovers_of_writers_that_are_gone_go_and_those_of_the_living_stay(store, folder):
    living = store.begin(key_of("living"), MIB)
    dead = store.begin(key_of("dead"), MIB)
    os.close(dead._descriptor)  # as the system does with those of a process that ends
    dead._descriptor = -1
    os.mkfifo(os.path.join(folder.path, f"{key_of('x').name.removesuffix('.weights')}.{'0' * 16}.writing"))
    other = RamModelStore(folder, 100 * MIB)
    assert other.counters()["leftovers"] == 2
    assert len([name for name in os.listdir(folder.path) if name.endswith(".writing")]) == 1
    store.abandon(living)


def test_only_one_may_read_a_part_while_others_wait_and_then_find_it(store, folder):
    key, tensors = key_of("one"), tensors_of(1)
    claim = store.claim(key, lambda: None)
    other = RamModelStore(folder, 100 * MIB)
    assert other.claim(key, lambda: None, wait=False) is None
    waits, found = threading.Event(), []

    def wait():
        late = other.claim(key, waits.set)
        found.append(other.find(key, again=True))
        late.release()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waits.wait(30)
    put(store, key, tensors)
    claim.release()
    thread.join(30)
    assert held(found[0], tensors)


def test_uses_of_all_servers_are_noted(store, folder):
    key = key_of("one")
    store.find(key)
    put(store, key, tensors_of(1), seconds=3.0)
    RamModelStore(folder, 100 * MIB).find(key)
    store.note_uses([key])
    with folder.opened() as opened:
        noted = uses.read(opened)
    assert [use.found for use in noted] == [Found.NOWHERE, Found.STORE, Found.SERVER]
    assert noted[1].seconds == 3.0 and noted[1].size_bytes > PART_BYTES


def test_the_section_shows_files_users_hits_and_what_this_server_did(store):
    key = key_of("one")
    store.find(key)
    put(store, key, tensors_of(1))
    gc.collect()
    idle = describe(store)["files"][0]
    assert idle["users"] == [] and idle["hits"] == 0
    part = store.find(key)
    section = describe(store)
    file = section["files"][0]
    assert (file["model"], file["hits"], file["seconds"]) == ("model of one", 1, 1.0) and file["last_use"] > 1e9
    assert file["users"] in ([os.getpid()], []) and (file["users"] or not os.path.exists("/proc/locks"))
    assert section["enabled"] and section["bytes"] == file["bytes"] >= PART_BYTES and section["cap_bytes"] == 100 * MIB
    assert section["mapped"][0]["in_store"] and section["mapped"][0]["bytes"] >= PART_BYTES
    assert section["counters"]["hits"] == section["counters"]["stored"] == section["counters"]["misses"] == 1
    del part


def test_a_store_that_is_deleted_is_made_again_and_what_is_mapped_stays(store):
    key, tensors = key_of("one"), tensors_of(1)
    put(store, key, tensors)
    part = store.find(key)
    for name in os.listdir(store.folder.path):
        os.unlink(os.path.join(store.folder.path, name))
    os.rmdir(store.folder.path)
    assert held(part, tensors) and store.find(key) is None
    assert put(store, key, tensors)[0] and held(store.find(key), tensors)


def test_a_store_that_turns_unusable_is_said_once_and_gone_without(store, caplog, monkeypatch):
    key = key_of("one")
    put(store, key, tensors_of(1))
    os.chmod(store.folder.path, 0o755)
    for _ in range(3):
        assert store.find(key) is None and store.begin(key, MIB) is None and store.claim(key, lambda: None) is None
        assert store.relieve(1) == 0 and store.clear("asked") == 0
        store.note_uses([key])
    assert "error" in describe(store)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "chmod" in warnings[0]
    os.chmod(store.folder.path, 0o700)
    assert store.find(key) is not None


def test_a_strange_folder_is_refused_at_the_start(memory_path):
    (memory_path / "open").mkdir(mode=0o755)
    with pytest.raises(StoreRefused):
        RamModelStore(StoreFolder(str(memory_path / "open")), MIB)


def test_check_finds_damage_strangers_and_too_much(folder):
    store = RamModelStore(folder, 100 * MIB)
    put(store, key_of("one"), tensors_of(1))
    _flip(40)(files(store)[key_of("one").name])
    (folder_file := os.path.join(folder.path, "stranger"))
    open(folder_file, "w").close()
    store.cap_bytes = 1
    said = "; ".join(check(store))
    assert "damaged" in said and "stranger does not belong here" in said and "are allowed" in said
