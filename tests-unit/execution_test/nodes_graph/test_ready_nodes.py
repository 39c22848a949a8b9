"""The order in which ready nodes are handed out."""

import random

from comfy_execution.nodes_graph.ready_nodes import ReadyNodes


def test_urgency_comes_before_age_and_age_decides_among_equals():
    ready = ReadyNodes()
    ready.put("old", 3, 1)
    ready.put("new", 3, 2)
    ready.put("urgent", 0, 9)
    assert list(ready) == ["urgent", "old", "new"] and ready.first() == "urgent"
    ready.discard("urgent")
    ready.put("new", 1, 2)
    assert list(ready) == ["new", "old"] and ready.first() == "new"


def test_what_is_taken_out_may_come_back_and_the_empty_one_is_false():
    ready = ReadyNodes()
    assert not ready and ready.first() is None
    ready.put("a", 1, 1)
    ready.discard("a")
    ready.discard("never there")
    assert not ready and ready.first() is None and "a" not in ready
    ready.put("a", 1, 1)
    assert ready and ready.first() == "a" and "a" in ready


def test_the_first_is_always_the_smallest_after_random_changes():
    dice = random.Random(5)
    ready, plain = ReadyNodes(), {}
    for _ in range(3000):
        node_id = f"n{dice.randrange(40)}"
        if dice.random() < 0.4:
            ready.discard(node_id)
            plain.pop(node_id, None)
        else:
            plain[node_id] = dice.randrange(4), int(node_id[1:])
            ready.put(node_id, *plain[node_id])
        assert ready.first() == min(plain, key=plain.__getitem__, default=None)
        assert list(ready) == sorted(plain, key=plain.__getitem__)
