"""What a config names first is loaded first, and has the first claim on the room."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from custom_nodes.keepwarm.preload.in_order import LoadsInOrder


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_loads_begin_in_their_order_whatever_thread_comes_first(places):
    order, begun = LoadsInOrder(lambda: None), []

    def load(place):
        with order.turn(place, 1):
            begun.append(place)

    threads = [threading.Thread(target=load, args=[place]) for place in places]
    for thread in threads:
        thread.start()
        thread.join(0.02)
    for thread in threads:
        thread.join(5)
    assert begun == [0, 1, 2, 3]


@pytest.mark.parametrize(("room_bytes", "together"), [(None, True), (120, True), (119, False), (0, False)])
def test_two_load_together_only_where_both_surely_have_room(room_bytes, together):
    order = LoadsInOrder(lambda: room_bytes)
    second_began = threading.Event()

    def load_second():
        with order.turn(1, 10):
            second_began.set()

    with ThreadPoolExecutor(1) as pool:
        with order.turn(0, 20):
            second = pool.submit(load_second)
            assert second_began.wait(5 if together else 0.1) is together
        second.result(5)
    assert second_began.is_set()


def test_a_load_that_fails_does_not_hold_up_the_next():
    order = LoadsInOrder(lambda: 0)
    with pytest.raises(ValueError, match="damaged"), order.turn(0, 20):
        raise ValueError("damaged")
    with order.turn(1, 20):
        pass
