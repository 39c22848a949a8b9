"""Which models are kept, and what counts as the same model."""

import enum
import os
import random

import pytest
import torch

from comfy.ram_models.cache import Entry, WorthCache
from comfy.ram_models.keys import NotComparable, is_current, key_of, paths_of


def play(requests, cap, sizes, seconds):
    """The seconds that keeping saves on *requests*, one key at a time."""
    cache, saved = WorthCache(cap), 0.0
    for key in requests:
        if cache.ask([key]):
            saved += seconds[key]
        else:
            cache.put(key, Entry(key, seconds[key], lambda key=key: sizes[key]))
        assert sum(sizes[kept] for kept in cache.entries) <= cap
    return saved, cache


def least_recently_used(requests, cap, sizes, seconds):
    kept, saved = [], 0.0
    for key in requests:
        if key in kept:
            saved += seconds[key]
            kept.remove(key)
        kept.append(key)
        while sum(sizes[one] for one in kept) > cap:
            kept.pop(0)
    return saved


def test_a_cycle_over_more_than_fits_keeps_part_of_it():
    sizes, seconds = dict.fromkeys("abc", 1), dict.fromkeys("abc", 1.0)
    saved, _ = play("abc" * 30, 2, sizes, seconds)
    assert saved >= 55 and least_recently_used("abc" * 30, 2, sizes, seconds) == 0


def test_what_takes_longer_to_load_stays():
    _, cache = play("ab" * 10, 1, {"a": 1, "b": 1}, {"a": 1.0, "b": 5.0})
    assert set(cache.entries) == {"b"}


def test_small_ones_stay_rather_than_one_large_one_of_the_same_time():
    _, cache = play("abc" * 10, 4, {"a": 4, "b": 2, "c": 2}, dict.fromkeys("abc", 3.0))
    assert set(cache.entries) == {"b", "c"}


def test_what_nobody_asks_for_any_more_makes_way():
    _, cache = play("ab" * 20 + "cd" * 20, 2, dict.fromkeys("abcd", 1), dict.fromkeys("abcd", 1.0))
    assert set(cache.entries) == {"c", "d"}


@pytest.mark.parametrize("seed", range(20))
def test_over_random_requests_it_is_never_much_worse_than_keeping_the_last_ones(seed):
    dice = random.Random(seed)
    keys = range(8)
    sizes = {key: dice.randint(1, 6) for key in keys}
    seconds = {key: dice.uniform(0.5, 8) for key in keys}
    requests = dice.choices(keys, [1 / (1 + key) for key in keys], k=400)
    saved, _ = play(requests, 10, sizes, seconds)
    assert saved > 0.95 * least_recently_used(requests, 10, sizes, seconds)


def test_what_is_too_large_is_not_kept_and_drives_nothing_out():
    cache = WorthCache(10)
    cache.ask(["a"])
    assert cache.put("a", Entry(1, 1.0, lambda: 6)) == []
    cache.ask(["b"])
    assert cache.put("b", Entry(2, 99.0, lambda: 11)) == ["b"]
    assert set(cache.entries) == {"a"}


def test_sizes_are_those_of_now():
    cache, size = WorthCache(10), [4]
    cache.ask(["a"])
    cache.put("a", Entry(1, 1.0, lambda: size[0]))
    size[0] = 12
    assert cache.shrink(10) == ["a"]


def test_no_more_is_remembered_than_a_few_hundred_keys():
    cache = WorthCache(1)
    for number in range(2000):
        cache.ask([number])
    assert len(cache._pasts) <= 512


class Kind(enum.Enum):
    FLUX = 1
    SD3 = 2


OPTIONS = [{}, {"dtype": torch.float16}, {"dtype": torch.float8_e4m3fn}, {"kind": Kind.FLUX}, {"kind": Kind.SD3}, {"x": 1}, {"x": True}]
OPTIONS += [{"x": 1.0}, {"x": "1"}, {"x": [1]}, {"x": (1,)}, {"x": {"y": 1}}, {"device": torch.device("cpu")}]


def test_different_options_files_and_parts_are_different_keys(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    keys = [key_of("model", [tmp_path / "a"], options) for options in OPTIONS]
    keys += [
        key_of("clip", [tmp_path / "a"], {}),
        key_of("model", [tmp_path / "b"], {}),
        key_of("model", [tmp_path / "a", tmp_path / "b"], {}),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of("model", [tmp_path / "a"], {"b": 1, "a": 2}) == key_of("model", [tmp_path / "a"], {"a": 2, "b": 1})


@pytest.mark.parametrize("value", [torch.zeros(1), torch.nn.Linear, len], ids=["tensor", "class", "function"])
def test_what_cannot_be_compared_is_refused(tmp_path, value):
    (tmp_path / "a").write_text("a")
    with pytest.raises(NotComparable):
        key_of("model", [tmp_path / "a"], {"model_options": {"custom_operations": value}})


def test_a_key_knows_whether_its_file_is_still_the_same(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    key = key_of("model", [tmp_path / "link"], {})
    assert is_current(key) and paths_of(key) == (str(tmp_path / "a"),) and key == key_of("model", [tmp_path / "a"], {})
    before = os.stat(tmp_path / "a")
    (tmp_path / "a").write_text("b")
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not is_current(key)
    (tmp_path / "a").unlink()
    assert not is_current(key)
