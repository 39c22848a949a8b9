"""What the past foretells, what is worth keeping for it, and who is followed."""

import pytest

from comfy.ram_model_cache.known_keys import KnownKeys
from comfy.ram_model_cache.planning import AHEAD, Past, Value, knapsack, worth_keeping
from comfy.ram_model_cache.policy import RamCachePolicy
from comfy.ram_model_cache.shadows import NEWEST, OLDEST, PLAN, ChoosingPolicy


def futures(past, coming=()):
    made = Past()
    for key in past:
        made.note(key)
    return made.futures(coming)


def test_what_followed_the_longest_matches_is_foretold():
    foretold = futures("abxabyab")
    assert {future[0]: count for future, count in foretold.items()} == {"y": 1, "x": 1} and set(map(len, foretold)) == {AHEAD}
    assert ("y", "a", "b") * (AHEAD // 3) in foretold, "a match that reaches the end goes on with what it foretells"
    assert list(futures("ab" * 9).values()) == [6], "the longest matches, each counted"
    assert not futures("abc") and not futures("")


def test_what_is_coming_is_certain_and_what_follows_it_foretold():
    foretold = futures("abcab", "ca")
    assert foretold and all("".join(future).startswith("cabca") for future in foretold)
    assert futures("abc", "xy") == {("x", "y"): 1}, "nothing is known of what follows"
    assert set(map(len, futures("a", "b" * 100))) == {AHEAD}


@pytest.mark.parametrize("past, onward", [("abcdedcb", "abcdedcb" * 3), ("abcddcb", "aabcddcb" * 3), ("xyabcdcba", "yxyabcdcba" * 3)])
def test_requests_that_go_back_the_way_they_came_are_foretold_to_go_on_so_and_to_turn_where_they_began(past, onward):
    assert futures(past) == {tuple(onward[:AHEAD]): 1}


@pytest.mark.parametrize("past", ["abcdc", "abcdcbx", "abcabcabc", "aaaabbbb", "abababab"])
def test_no_turn_is_foretold_that_was_not_right_twice_or_where_a_repetition_was_right_as_often(past):
    made = Past()
    for key in past:
        made.note(key)
    assert made._back.right < 2 or made._back.right <= made._onward.right


@pytest.mark.parametrize("back, fit, least", [("gfedcba", 3, 45), ("gfedcba", 4, 60), ("fedcb", 3, 43), ("fedcb", 4, 58)])
def test_a_zig_zag_is_served_well_from_its_first_turn_on(back, fit, least):
    assert sum(served(RamCachePolicy(), list(("abcdefg" + back) * 8), fit)) >= least


def values(sizes, seconds=None, per_request=0.01):
    return {key: Value(size, (seconds or {}).get(key, 1.0), per_request) for key, size in sizes.items()}


@pytest.mark.parametrize(
    "future, sizes, cap, kept",
    [
        ("bca", {"a": 1, "b": 1, "c": 1}, 1, {"b"}),
        ("bcab", {"a": 1, "b": 1, "c": 1}, 2, {"b", "c"}),
        ("abab", {"a": 3, "b": 1, "c": 2}, 3, {"b", "c"}),
        ("aaaa", {"a": 2, "b": 1, "c": 1}, 2, {"a"}),
    ],
)
def test_what_is_asked_for_soon_and_fits_is_kept(future, sizes, cap, kept):
    assert worth_keeping(list(future), "abc", values(sizes), cap) == kept


def test_a_slow_key_is_kept_although_small_ones_save_more_per_byte():
    seconds, sizes = {"large": 10.0, "small": 2.0}, {"large": 10, "small": 1}
    assert worth_keeping(["small", "large"], list(sizes), values(sizes, seconds, 0.0), 10) == {"large"}


def test_on_a_round_the_set_worth_most_is_kept_although_others_save_more_per_byte():
    """Interval by interval the small models, seven seconds a round, would take the place of the large one, ten seconds a round."""
    seconds, sizes = {"large": 10.0, "a": 3.5, "b": 3.5}, {"large": 10, "a": 3, "b": 3}
    future = ["a", "b", "large"] * 8
    for kept in (["large", "a"], ["large", "b"]):
        assert worth_keeping(future, kept, values(sizes, seconds, 0.0), 10) == {"large"}
    assert worth_keeping(future, ["large"], values(sizes, seconds, 0.0), 9) == set()


def test_keys_of_which_nothing_is_known_take_no_part():
    assert worth_keeping(["a", "b", "a"], ["a", "b"], values({"a": 1, "b": 0}), 1) == {"a"}


def test_the_best_set_that_fits_is_packed():
    assert set(knapsack([(6.0, 3, "a"), (5.0, 3, "b"), (5.0, 3, "c")], 6)) == {"a", "b"}
    assert set(knapsack([(7.0, 4, "a"), (5.0, 3, "b"), (5.0, 3, "c")], 6)) == {"b", "c"}
    assert knapsack([(1.0, 7, "a")], 6) == ()


def served(policy, requests, cap, seconds=None, ahead=0):
    """The keys that were found, as the cache asks *policy*; every key has size 1."""
    kept, found = {}, []
    for now, key in enumerate(requests):
        policy.request(key)
        found.append(key in kept)
        if key not in kept:
            decision = policy.decide(key, 1, cap, kept, coming=requests[now + 1 : now + 1 + ahead])
            for victim in decision.victims:
                del kept[victim]
            policy.learn(key, 1, (seconds or {}).get(key, 1.0))
            kept.update({key: 1} if decision.admit else {})
    return found


def test_a_known_queue_is_served_as_well_as_can_be():
    requests = list("abcadbeacbdace")
    assert sum(served(RamCachePolicy(), requests, 2, ahead=8)) >= sum(served(RamCachePolicy(), requests, 2)) + 2


def test_a_key_that_the_queue_does_not_name_is_not_kept_for_one_that_it_names():
    policy = RamCachePolicy()
    for key in "aabbcc":
        policy.request(key)
        policy.learn(key, 1, 1.0)
    policy.request("d")
    assert policy.decide("d", 1, 2, {"a": 1, "b": 1}, coming=["a", "b", "a", "b"]).admit is False
    assert policy.decide("d", 1, 2, {"a": 1, "b": 1}, coming=["d", "a", "d", "a"]).victims == ("b",)
    assert policy.decide("d", 1, 2, {"a": 1, "b": 1}, held={"a", "b"}, coming=["d"]).admit is False


def test_a_policy_that_saves_more_is_followed_and_says_so_once(monkeypatch):
    policy = ChoosingPolicy(2)
    monkeypatch.setattr(policy._home, "place", lambda key, size_bytes, kept: None)  # the plan is made to keep nothing
    told = []
    for key in "aab" * 12:
        policy.request(key)
        told.append(policy.news())
        if not policy.known.bytes_of(key):
            policy.decide(key, 1, 2, {})
            policy.learn(key, 1, 1.0)
    changes = [news for news in told if news is not None]
    assert policy.followed.name != PLAN and [(news.now, news.before) for news in changes] == [(policy.followed.name, PLAN)]
    assert changes[0].now_s > changes[0].before_s == 0
    kept = {"c": 1, "a": 1}
    policy.request("b")
    assert policy.decide("b", 1, 2, kept).victims == ("c",), "what the followed one does not keep goes first"
    policy.request("x")
    policy.followed.kept.clear()
    assert not policy.decide("x", 1, 2, {"a": 1, "b": 1}).admit or "x" in policy.followed.kept


def test_chance_does_not_change_who_is_followed():
    policy = ChoosingPolicy(3)
    served(policy, list("abcde" * 30), 3)
    assert policy.followed.name == PLAN and policy.news() is None


def test_shadows_keep_to_the_cap_and_to_a_new_one():
    policy = ChoosingPolicy(4)
    served(policy, list("abcdefgh" * 5), 4)
    assert all(len(shadow.kept) == 4 for shadow in policy._shadows)
    policy.resize(2)
    served(policy, list("hgfedcba" * 5), 2)
    assert all(len(shadow.kept) <= 2 for shadow in policy._shadows)
    assert {shadow.name for shadow in policy._shadows} >= {PLAN, OLDEST, NEWEST}


class Part:
    """A key as the server makes them."""

    def __init__(self, component, *paths, options=()):
        self.component, self.paths, self.options = component, paths, options


def test_the_queues_files_stand_for_the_keys_last_asked_for():
    known = KnownKeys()
    old, new, clip, both = (Part("model", "/a", options="old"), Part("model", "/a"), Part("clip", "/a"), Part("clip", "/b", "/a"))
    for key in (clip, old, new, both, "no files"):
        known.request(key)
    assert known.behind(["/b", "/a", "/unknown", "/b"]) == [both, clip, new, both]


def test_what_was_never_loaded_or_asked_for_once_has_no_size_of_its_own():
    known = KnownKeys()
    for key in ("once", "twice", "twice", "never loaded", "never loaded"):
        known.request(key)
    known.learn("once", 5, 1.0)
    known.learn("twice", 7, 1.0)
    assert known.loaded() == {"once": 5, "twice": 7} and known.loaded(returning=True) == {"twice": 7}
    assert known.bytes_of("once") == 5 and known.bytes_of("never loaded") == known.bytes_of("unknown") == 0
