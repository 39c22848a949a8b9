"""The order of lookups on small and random graphs, against the plain definition of what is wanted."""

import asyncio
import random

import pytest

from comfy_execution.providers.waves import walk_in_waves


def walk(parents, targets, outside=(), local=(), mute=()):
    """(hits, the waves asked)."""
    waves = []

    async def ask(wave):
        waves.append(wave)
        return {node for node in wave if node in outside}

    hits = asyncio.run(
        walk_in_waves(targets, lambda node: parents.get(node, ()), lambda node: node in local, lambda node: node not in mute, ask)
    )
    return hits, waves


def line(length):
    return {index: [index - 1] for index in range(1, length)}


@pytest.mark.parametrize("length, count", [(1, 1), (3, 2), (7, 3), (8, 4), (200, 4), (263, 4), (264, 5), (10_000, 5)])
def test_a_line_of_misses_takes_few_waves(length, count):
    hits, waves = walk(line(length), [length - 1])
    assert not hits and len(waves) == count
    assert sorted(node for wave in waves for node in wave) == list(range(length))


def test_a_hit_at_the_output_asks_for_nothing_else():
    assert walk(line(200), [199], outside=set(range(200))) == ({199}, [[199]])


def test_nodes_that_cannot_be_outside_are_passed_through_at_no_cost():
    assert walk(line(10), [9], outside={3}, mute=set(range(4, 10))) == ({3}, [[3]])


def test_nothing_above_a_local_result_is_asked_for():
    assert walk(line(10), [9], local={9}) == (set(), [])


def test_a_hit_above_another_hit_is_not_used():
    hits, waves = walk(line(4), [3], outside={2, 1})
    assert hits == {2} and waves == [[3], [2, 1]]


def test_the_walk_ends_in_a_circle():
    hits, waves = walk({"a": ["b"], "b": ["a"]}, ["a"])
    assert not hits and sorted(node for wave in waves for node in wave) == ["a", "b"]


def test_hits_are_exactly_what_is_reached_through_misses():
    for seed in range(300):
        check_random_graph(random.Random(seed), f"seed {seed}")


def check_random_graph(dice, which):
    count = dice.randint(1, 25)
    parents = {index: [dice.randrange(index) for _ in range(dice.randint(0, 3))] if index else [] for index in range(count)}
    outside, local, mute = ({index for index in range(count) if dice.random() < share} for share in (dice.random() for _ in range(3)))
    targets = [dice.randrange(count) for _ in range(dice.randint(0, 3))]
    wanted, waiting, seen = set(), list(targets), set()
    while waiting:
        node = waiting.pop()
        if node in seen or node in local:
            continue
        seen.add(node)
        if node in outside and node not in mute:
            wanted.add(node)
        else:
            waiting.extend(parents[node])
    hits, waves = walk(parents, targets, outside, local, mute)
    asked = [node for wave in waves for node in wave]
    assert hits == wanted, which
    assert len(asked) == len(set(asked)) and not set(asked) & (local | mute), which
