"""When a progress bar passes a report on, and to whom."""

import pytest

from comfy import progress_bar
from comfy.progress_bar import ProgressBar


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class Hook:
    def __init__(self):
        self.reports = []

    def current_node_id(self):
        return "current"

    def __call__(self, value, total, preview, node_id=None):
        self.reports.append((value, total, preview, node_id))


@pytest.fixture
def hook():
    given = Hook()
    before = progress_bar.hook_state.hook
    progress_bar.set_progress_bar_global_hook(given)
    yield given
    progress_bar.set_progress_bar_global_hook(before)


def values(hook):
    return [report[0] for report in hook.reports]


def test_first_and_last_reports_always_pass(hook):
    bar = ProgressBar(100, clock=Clock())
    for _ in range(100):
        bar.update(1)
    assert values(hook) == [1, 100] and hook.reports[0] == (1, 100, None, "current")


def test_reports_between_need_time_and_change(hook):
    clock = Clock()
    bar = ProgressBar(1000, clock=clock)
    bar.update_absolute(1)
    clock.now_s = 0.05
    bar.update_absolute(50)
    clock.now_s = 0.11
    bar.update_absolute(3)
    bar.update_absolute(60)
    assert values(hook) == [1, 60]


def test_previews_pass_at_once(hook):
    bar = ProgressBar(10, node_id="7", clock=Clock())
    bar.update_absolute(1)
    bar.update_absolute(2, preview="image")
    assert hook.reports[1] == (2, 10, "image", "7")


def test_the_total_may_change_and_caps_the_value(hook):
    bar = ProgressBar(10, clock=Clock())
    bar.update_absolute(50, total=20)
    assert hook.reports == [(20, 20, None, "current")] and bar.current == 20


def test_without_a_hook_nothing_happens(hook):
    progress_bar.set_progress_bar_global_hook(None)
    bar = ProgressBar(10)
    bar.update(3)
    assert bar.current == 3 and bar.node_id is None and hook.reports == []


def test_a_hook_may_cancel(hook):
    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    progress_bar.set_progress_bar_global_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        ProgressBar(10).update(1)


def test_bars_can_be_switched_off_and_on():
    progress_bar.set_progress_bar_enabled(False)
    assert progress_bar.hook_state.enabled is False
    progress_bar.set_progress_bar_enabled(True)
    assert progress_bar.hook_state.enabled is True
