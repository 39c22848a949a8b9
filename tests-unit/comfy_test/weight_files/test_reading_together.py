"""Reading side by side is tried, kept where it is faster in all, and tried again."""

import pytest

from comfy.weight_files.pace import AT_ONCE, BackgroundPace, ReadLanes
from comfy.weight_files.reading_together import CHUNKS_MEASURED, CHUNKS_TO_SETTLE, FIRST_PAUSE, LONGEST_PAUSE, MUST_GAIN, ReadingTogether

CHUNK = 1 << 23
WINDOW = CHUNKS_TO_SETTLE + CHUNKS_MEASURED


class Disk:
    """Files that are read at 100 MB/s alone and at *gain* times that together, and what is found out about that."""

    def __init__(self, gain):
        self.gain, self.now_s = gain, 0.0
        self.together = ReadingTogether(lambda: self.now_s)

    def read(self, chunks, others=1):
        """Read *chunks*; returns for each whether it was read side by side."""
        seen = []
        for _ in range(chunks):
            self.now_s += CHUNK / 100e6 / (self.gain if self.together.is_on else 1.0)
            seen.append(self.together.is_on)
            self.together.note(CHUNK, others)
        return seen


@pytest.mark.parametrize(("gain", "is_on"), [(1.0, False), (MUST_GAIN - 0.05, False), (MUST_GAIN + 0.05, True), (3.0, True)])
def test_files_are_read_together_where_that_is_faster_in_all(gain, is_on):
    disk = Disk(gain)
    assert disk.read(WINDOW) == [False] * WINDOW
    assert disk.read(WINDOW) == [True] * WINDOW
    assert set(disk.read(20)) == {is_on}


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_it_is_tried_ever_more_seldom_as_long_as_nothing_changes(gain):
    disk = Disk(gain)
    seen = disk.read(40 * LONGEST_PAUSE)
    other = gain == 1.0
    assert seen[-3 * LONGEST_PAUSE :].count(other) <= 3 * WINDOW
    disk.gain = 4.0 - gain
    after = disk.read(3 * LONGEST_PAUSE)
    assert after[-FIRST_PAUSE // 2 :].count(other) > 0.6 * FIRST_PAUSE // 2, "another disk is noticed"


def test_alone_it_is_measured_and_not_tried_until_there_is_another_to_read():
    disk = Disk(3.0)
    assert not any(disk.read(5 * WINDOW, others=0))
    assert any(disk.read(2 * WINDOW))


def test_what_is_being_measured_begins_anew_when_other_files_are_read_and_what_was_found_stays():
    disk = Disk(3.0)
    disk.read(WINDOW + CHUNKS_TO_SETTLE)
    disk.together.readers_changed()
    assert disk.read(WINDOW) == [False] * WINDOW
    disk.read(WINDOW)
    assert disk.together.is_on
    disk.together.readers_changed()
    assert disk.together.is_on


def test_a_moment_is_too_short_to_measure():
    disk = Disk(3.0)
    disk.together = ReadingTogether(lambda: 0.0)
    assert not any(disk.read(10 * WINDOW))


def lanes_of(is_on):
    together = ReadingTogether(lambda: 0.0)
    together.readers_changed = lambda: None
    together.is_on = is_on
    return ReadLanes(together)


def test_in_turn_the_read_that_is_needed_first_goes_first():
    lanes = lanes_of(False)
    with lanes.reading(2) as second:
        assert lanes.may_read(second, 0)
        with lanes.reading(1) as first, lanes.reading(3) as third:
            assert [lanes.may_read(lane, 0) for lane in (first, second, third)] == [True, False, False]
            with lanes.reading() as at_once:
                assert [lanes.may_read(lane, 0) for lane in (at_once, first)] == [True, False]
                lanes.hurry(third)
                assert lanes.may_read(third, 0) and third.turn == AT_ONCE
        assert lanes.may_read(second, 0)


def test_where_the_disk_gains_nobody_waits():
    lanes = lanes_of(True)
    with lanes.reading(), lanes.reading(1) as one:
        assert lanes.may_read(one, 0)


def test_what_others_read_in_turn_is_not_counted_for_the_first():
    lanes, noted = lanes_of(False), []
    lanes._together.note = lambda size_bytes, others: noted.append((size_bytes, others))
    with lanes.reading() as first, lanes.reading(1) as later:
        lanes.note(later, 5)
        lanes.note(first, 7)
        lanes._together.is_on = True
        lanes.note(later, 9)
    assert noted == [(7, 1), (9, 1)]


def test_reads_that_are_all_at_once_are_nothing_to_try():
    lanes, noted = lanes_of(False), []
    lanes._together.note = lambda size_bytes, others: noted.append(others)
    with lanes.reading() as one, lanes.reading() as other:
        lanes.note(one, 5)
        lanes.note(other, 5)
    assert noted == [0, 0]


def test_loads_for_the_running_prompt_read_in_the_order_in_which_they_were_begun():
    lanes = lanes_of(False)
    first, second = (BackgroundPace(lambda: None, lambda: False, True, lanes) for _ in range(2))
    with second.lane():
        second.check()
        with first.lane():
            assert (first._may_read(0), second._may_read(0)) == (True, False)
