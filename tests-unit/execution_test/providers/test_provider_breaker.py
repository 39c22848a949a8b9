"""The circuit breaker on a clock that only moves when told."""

from comfy_execution.providers.breaker import CircuitBreaker


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def opened(clock):
    breaker = CircuitBreaker(clock, failures_to_open=2, first_pause_s=10, longest_pause_s=25)
    assert breaker.allows() and not breaker.fail()
    assert breaker.allows() and breaker.fail()
    return breaker


def test_it_opens_after_failures_in_a_row_only():
    breaker = CircuitBreaker(Clock(), failures_to_open=2)
    breaker.fail()
    breaker.succeed()
    breaker.fail()
    assert breaker.state == "closed" and breaker.allows()


def test_open_lets_nothing_through_and_half_open_one_call():
    clock = Clock()
    breaker = opened(clock)
    assert breaker.state == "open" and not breaker.allows()
    clock.now_s = 10
    assert breaker.state == "half-open" and breaker.allows() and not breaker.allows()
    breaker.succeed()
    assert breaker.state == "closed" and breaker.allows() and breaker.allows()


def test_each_failed_try_doubles_the_pause_up_to_the_longest():
    clock = Clock()
    breaker = opened(clock)
    for pause_s in (10, 20, 25, 25):
        clock.now_s += pause_s - 1
        assert not breaker.allows()
        clock.now_s += 1
        assert breaker.allows() and breaker.fail()


def test_an_abandoned_try_leaves_room_for_another():
    clock = Clock()
    breaker = opened(clock)
    clock.now_s = 10
    assert breaker.allows()
    breaker.abandon()
    assert breaker.allows()


def test_failures_of_calls_begun_before_it_opened_do_not_move_its_end():
    clock = Clock()
    breaker = opened(clock)
    clock.now_s = 9
    assert not breaker.fail()
    clock.now_s = 10
    assert breaker.allows()
