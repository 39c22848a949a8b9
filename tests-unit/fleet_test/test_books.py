"""The books follow what is sent, and are corrected by what servers say."""

import dataclasses

import pytest
from fleet_books import GB, A, B, C, ended, make_books, summary, work

from fleet.books import may_be_same


def test_what_is_sent_counts_at_once_with_the_loads_it_brings():
    book = (books := make_books("s")).servers["s"]
    books.send("s", work("1", A), 100.0)
    books.send("s", work("2", A), 100.0)
    assert book.wait_s(100.0) == pytest.approx(5 + 4 + 5), "the second finds the model of the first"
    assert book.wait_s(103.0) == pytest.approx(11) and book.wait_s(200.0) == pytest.approx(5 + 10), "the first is late"
    books.end("s", ended("1"), 110.0)
    assert book.wait_s(110.0) == pytest.approx(5) and book.missing([A.place, B.place]) == [B.place]
    books.end("s", ended("2"), 115.0)
    assert book.wait_s(115.0) == 0 and not book.sent


def test_the_least_recently_used_goes_when_there_is_no_room():
    book = (books := make_books("s")).servers["s"]
    for number, file in enumerate((A, B, A, C)):
        books.send("s", work(str(number), file), 0.0)
    assert list(book.warm) == [A.place, C.place] and book.warm_bytes == 8 * GB
    assert (books.copies[A.place], books.copies[B.place]) == (1, 0)


def test_a_summary_corrects_what_was_thought():
    book = (books := make_books("s")).servers["s"]
    books.send("s", work("1", A), 0.0)
    books.send("s", work("2", B), 0.0)
    books.report("s", summary(C, running=["2"], waiting=["1"]), 3.0)
    assert list(book.sent) == ["2", "1"], "the server takes them in another order"
    assert list(book.warm) == [B.place, A.place], "C goes when both have run"
    books.report("s", summary(A, B, ended=[ended("1"), ended("2"), ended("never sent")]), 9.0)
    assert not book.sent and book.wait_s(9.0) == 0 and set(book.warm) == {A.place, B.place}
    assert books.copies == {A.place: 1, B.place: 1, C.place: 0}


def test_durations_are_learnt_from_receipts_once_and_not_from_failures():
    books = make_books("s")
    books.send("s", work("1", A, kind="slow"), 0.0)
    books.send("s", work("2", A, kind="broken"), 0.0)
    for _ in range(2):
        books.end("s", ended("1", seconds=30.0, read_s=10.0), 30.0)
        books.end("s", ended("2", seconds=0.1, status="error"), 30.0)
    assert books.durations.compute_s("slow") == 20.0
    assert books.durations.compute_s("broken") == books.durations.compute_s("unknown") == pytest.approx(6.5)


def test_loads_are_known_by_contents_and_otherwise_by_size():
    books = make_books("s", "other")
    twin = dataclasses.replace(A, name="same contents")
    other = dataclasses.replace(A, identity="other contents")
    books.report("s", summary(A), 0.0)
    books.durations.learn_load(A.identity, 17.0, A.size_bytes)
    assert books.durations.load_of(twin)[0] == 17.0
    assert books.durations.load_of(other)[0] not in (17.0, 0.0)


def test_files_of_one_name_and_different_contents_are_distinguished():
    larger = dataclasses.replace(B, size_bytes=5 * GB)
    unread = dataclasses.replace(C, identity=None)
    changed = dataclasses.replace(A, identity="other contents")
    books = make_books("s")
    books.add("t", [changed, larger, unread], 8 * GB)
    assert {place for place, *_ in books.conflicts()} == {A.place, B.place}
    assert may_be_same(C, unread)


def test_a_report_of_a_replaced_file_makes_it_another():
    books = make_books("s")
    changed = dataclasses.replace(A, identity="other contents")
    books.report("s", summary(changed), 0.0)
    assert books.servers["s"].files[A.place] == changed


def test_a_server_that_is_gone_or_comes_back_leaves_nothing():
    books = make_books("s", "t")
    books.send("s", work("1", A), 0.0)
    assert [one.prompt_id for one in books.remove("s")] == ["1"] and books.copies[A.place] == 0
    assert books.remove("s") == []
    books.send("t", work("2", B), 0.0)
    assert not books.add("t", [B]).sent and books.copies[B.place] == 0
    books.withdraw("s", "1", 0.0)


def test_without_a_known_cap_nothing_is_thought_to_go():
    books = make_books("s", cap_bytes=0)
    for file in (A, B, C):
        books.send("s", work(file.name, file), 0.0)
    assert len(books.servers["s"].warm) == 3
