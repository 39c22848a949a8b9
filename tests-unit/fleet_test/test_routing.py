"""Where jobs go, and that a short look finds what a long one finds."""

import random

import pytest
from fleet_books import GB, A, B, C, ModelFile, ended, make_books, summary, work

from fleet.books import Work
from fleet.routing import Weights, choose
from fleet.shortlist import Shortlist, SoonestIdle


def choice(books, job, now_s=0.0, **more):
    return choose(job, books.candidates(job.needs, now_s), now_s, copies=books.copies, **more)


def test_a_job_goes_where_its_model_is_warm():
    books = make_books("s", "t")
    books.report("t", summary(A), 0.0)
    found = choice(books, work("1", A))
    assert found.server_id == "t" and found.delay_s == 0 and "warm here" in found.reason


def test_waiting_where_it_is_warm_is_given_up_when_a_load_costs_less():
    books = make_books("s", "t")
    books.report("t", summary(A), 0.0)
    for number in range(2):
        books.send("t", work(str(number), A), 0.0)
    assert choice(books, work("x", A)).server_id == "t", "10 s of waiting cost less than 4 s of loading, which count three times"
    books.send("t", work("2", A), 0.0)
    found = choice(books, work("x", A))
    assert found.server_id == "s" and found.delay_s == 8 and found.estimates[0].missing == ("checkpoints/a",)
    assert "must be loaded (4.0 s), which costs less than to wait 15.0 s" in found.reason


def test_what_was_sent_just_now_counts_as_warm_before_any_server_says_so():
    books = make_books("s", "t")
    first = choice(books, work("1", A))
    books.send(first.server_id, work("1", A), 0.0)
    assert choice(books, work("2", A)).server_id == first.server_id


def test_the_last_warm_copy_is_spared():
    books = make_books("s", "t")
    books.report("s", summary(A, B), 0.0)
    books.report("t", summary(B, B), 0.0)
    found = choice(books, work("1", C))
    assert found.server_id == "t"


def test_servers_without_the_file_or_excluded_are_left_out():
    books = make_books("s", "t")
    books.add("u", [B])
    assert choice(books, work("1", A), excluded={"s"}).server_id == "t"
    assert choice(books, work("1", A), excluded={"s", "t"}) is None
    assert choice(books, Work("1", (), ""), excluded={"s", "t"}).server_id == "u", "a prompt without models runs anywhere"
    assert "as everywhere else" in choice(books, work("1", A)).reason


def test_a_rare_job_is_passed_only_by_those_that_come_soon_after_it():
    books = make_books("s")
    books.report("s", summary(A, B), 0.0)
    order = []
    for arrival_s, job in enumerate([work("rare", C), *(work(str(number), A) for number in range(20))]):
        found = choice(books, job, float(arrival_s), weights=Weights(ageing=2.0))
        order.append((arrival_s + found.delay_s, job.prompt_id))
        books.send("s", job, float(arrival_s))
    assert sorted(order).index((8.0, "rare")) == 7, "whoever comes more than 8 s later waits behind it"


def test_choosing_changes_nothing():
    books = make_books("s")
    books.report("s", summary(A, B), 0.0)
    before = repr(books.servers)
    choice(books, work("1", C))
    assert repr(books.servers) == before


@pytest.mark.parametrize("seed", range(5))
def test_the_shortlist_holds_the_best_of_a_large_fleet(seed):
    random_ = random.Random(seed)
    files = [ModelFile("checkpoints", str(number), str(number), 2 * GB) for number in range(12)]
    books = make_books(*(f"s{number:03}" for number in range(100)), files=files)
    now_s = 0.0
    for number in range(600):
        now_s += random_.expovariate(20)
        end_what_is_due(books, now_s)
        job = work(str(number), random_.choice(files))
        weights = Weights(eviction=0.0)
        found = choose(job, books.candidates(job.needs, now_s), now_s, weights)
        best = choose(job, books.servers.values(), now_s, weights)
        cost = [one.estimates[0].wait_s + weights.load * one.estimates[0].load_s for one in (found, best)]
        assert cost[0] == pytest.approx(cost[1])
        books.send(found.server_id, job, now_s)
    assert len(books.candidates(job.needs, now_s)) <= 4


def end_what_is_due(books, now_s):
    """End the jobs that take as long as expected, when they do."""
    for book in books.servers.values():
        while book.sent:
            prompt_id, first = next(iter(book.sent.items()))
            end_s = book.busy_since_s + first.compute_s + first.load_s
            if end_s > now_s:
                break
            books.end(book.server_id, ended(prompt_id, first.compute_s), end_s)


def test_very_late_jobs_do_not_fill_the_short_list():
    """Where no server is idle, those whose jobs should have ended long ago look as if they were idle first."""
    books = make_books(*(f"s{number:02}" for number in range(40)))
    for number in range(40):
        is_stuck = number < 5
        books.send(f"s{number:02}", work(str(number), A), 0.0 if is_stuck else 1000.0)
    for now_s in (1000.0, 1001.0, 1008.0):
        for needs in ((A,), (C,), ()):
            job = work("next", *needs)
            found = choose(job, books.candidates(job.needs, now_s), now_s, copies=books.copies)
            best = choose(job, books.servers.values(), now_s, copies=books.copies)
            assert found.server_id == best.server_id > "s04", "not behind a job that is 990 s late"
    books.end("s03", ended("3"), 1008.0)
    assert choice(books, work("next", A), 1008.0).server_id == "s03"


def test_soonest_idle_follows_changes_both_ways():
    idle_at_s = {}
    order = SoonestIdle(lambda server_id, now_s: idle_at_s[server_id])
    for server_id, at_s in (("a", 5.0), ("b", 3.0), ("a", 1.0), ("c", 2.0), ("b", 9.0), ("b", 9.0)):
        idle_at_s[server_id] = at_s
        order.tell(server_id, at_s)
    assert order.first(3, 0.0) == ["a", "c", "b"] == order.first(9, 0.0)
    order.forget("a")
    idle_at_s["c"] = 20.0  # later, and nobody says so
    assert order.first(2, 0.0) == ["b", "c"]


def test_entries_that_stand_for_nothing_do_not_pile_up():
    idle_at_s = {"a": 0.0, "b": 0.0}
    order = SoonestIdle(lambda server_id, now_s: idle_at_s[server_id])
    order.tell("b", 0.0)
    for number in range(10_000):
        idle_at_s["a"] = float(-number)
        order.tell("a", idle_at_s["a"])
    assert len(order._heap) < 100 and order.first(2, 0.0) == ["a", "b"]


def test_a_shortlist_forgets_what_is_gone():
    listed = Shortlist(lambda server_id, now_s: {"s": 1.0, "t": 9.0}[server_id])
    for server_id, places in (("s", [A.place]), ("t", [B.place]), ("t", [A.place])):
        listed.warmed(server_id, dict.fromkeys(places, 1))
        listed.moved(server_id, {"s": 1.0, "t": 9.0}[server_id])
    assert listed.candidates([B.place], 0.0) == ["s", "t"] == listed.candidates([A.place], 0.0)
    listed.gone("s")
    assert listed.candidates([A.place], 0.0) == ["t"]
