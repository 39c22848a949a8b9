"""How many bytes the history takes."""

import random

from comfy_execution.prompts.history_size import HistorySize, tree_bytes


class Hostile(list):
    """Says everything about itself by raising."""

    def __iter__(self):
        raise KeyboardInterrupt

    def __sizeof__(self):
        raise SystemExit

    __len__ = __iter__


def test_the_size_of_a_tree_covers_its_texts_and_counts_shared_parts_once():
    text = "x" * 10_000
    assert 10_000 < tree_bytes({"a": [text, (text, {"b": text})]}) < 12_000
    assert tree_bytes([text + "y", text + "z"]) > 20_000


def test_measuring_runs_no_code_of_what_is_measured_and_ends():
    looped = ["x" * 5000]
    looped.append(looped)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert tree_bytes([Hostile(["x" * 5000]), object()]) > 5000
    assert 5000 < tree_bytes(looped) < 6000 and tree_bytes(deep) > 4_000_000
    assert 1000 < tree_bytes([str(index) for index in range(100_000)], most_bytes=1000) < 2_000_000


def test_the_oldest_entries_go_until_both_bounds_hold():
    size, history, dice = HistorySize(), {}, random.Random(1)
    for _ in range(2000):
        prompt_id = f"p{dice.randrange(40)}"
        history.pop(prompt_id, None)
        history[prompt_id] = dice.randrange(1, 50)
        size.note(prompt_id, history[prompt_id])
        if dice.random() < 0.1:
            # As packs do it, without a word.
            history.pop(next(iter(history)))
        size.trim(history, 10, 200)
        assert len(history) <= 10 and size.total_bytes == sum(history.values())
        assert size.total_bytes <= 200 or len(history) == 1
    size.clear()
    assert size.total_bytes == 0
