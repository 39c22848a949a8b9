"""Timestamps of re-encoded videos: they start at zero, grow, and end where they should. Ticks of 1/100 s in these cases."""

import pytest

from comfy_api.latest._input_impl.video_timeline import FrameTimeline


def placed(timeline, *frames):
    """Place (pts, duration) frames; the resulting (pts, duration) of those that are kept."""
    kept = [timeline.place(*frame) for frame in frames]
    return [(pts, timeline.durations[pts]) for pts in kept if pts is not None]


def test_timestamps_start_at_zero_and_keep_their_distances():
    timeline = FrameTimeline(step=4, start=0, window_end=None, stream_end=None)
    assert placed(timeline, (50, 4), (54, 30), (84, 4)) == [(0, 4), (4, 30), (34, 4)]
    assert timeline.end == 38 and timeline.take_duration(4) == 30 and timeline.take_duration(4) == 0


def test_missing_and_backward_timestamps_move_forward_by_one_step():
    timeline = FrameTimeline(step=4, start=0, window_end=None, stream_end=None)
    assert placed(timeline, (None, 4), (None, None), (10, 4), (6, 4), (30, 4)) == [(0, 4), (4, 4), (8, 4), (12, 4), (20, 4)]


def test_last_frame_is_cut_at_the_window():
    timeline = FrameTimeline(step=4, start=10, window_end=30, stream_end=None)
    assert placed(timeline, (10, 4), (20, 90)) == [(0, 4), (10, 10)]


def test_frame_beyond_the_announced_end_moves_before_it_when_there_is_room():
    timeline = FrameTimeline(step=4, start=0, window_end=None, stream_end=20)
    assert placed(timeline, (0, 4), (4, 4), (18, 4)) == [(0, 4), (4, 4), (16, 4)]


def test_frame_beyond_the_announced_end_is_shortened_or_dropped_without_room():
    timeline = FrameTimeline(step=4, start=0, window_end=None, stream_end=20)
    assert placed(timeline, (0, 4), (17, 3), (19, 4), (20, 4)) == [(0, 4), (17, 3), (19, 1)]


def test_closing_the_window_holds_the_last_frame_until_its_end():
    timeline = FrameTimeline(step=4, start=10, window_end=50, stream_end=None)
    placed(timeline, (12, 4))
    timeline.close_window()
    assert timeline.end == 38 and timeline.take_duration(0) == 38


def test_closing_an_empty_window_changes_nothing():
    timeline = FrameTimeline(step=4, start=0, window_end=50, stream_end=None)
    timeline.close_window()
    assert timeline.end is None


@pytest.mark.parametrize("frames", [[(0, 5), (5, 5), (5, 5), (4, 5), (None, 5), (40, 5), (41, 50), (99, 5)]])
def test_timestamps_always_grow_and_stay_within_the_window(frames):
    kept = placed(FrameTimeline(step=5, start=0, window_end=60, stream_end=None), *frames)
    assert [pts for pts, _ in kept] == sorted({pts for pts, _ in kept})
    assert all(duration > 0 and pts + duration <= 60 for pts, duration in kept)
