"""Circles: every member is told once, in words that stay short however many circles there are."""

import random

from checked_prompts import CLASSES, check, declare, node

from comfy_execution.prompt_checks.cycles import MAX_CYCLES, MIN_CYCLE_NODES, Cycles


def ring(size, **more):
    return {str(index): node("Pass", a=(str((index + 1) % size), 0)) for index in range(size)} | more


def book(path, class_type="Pass"):
    cycles = Cycles({node_id: node(class_type) for node_id in path})
    for node_id in path:
        cycles.enter(node_id)
    return cycles


def members_by_force(links):
    """Nodes that can be reached from themselves."""

    def below(start):
        found, waiting = set(), [start]
        while waiting:
            for one in links[waiting.pop()]:
                if one not in found:
                    found.add(one)
                    waiting.append(one)
        return found

    return {one for one in links if one in below(one)}


def test_each_node_is_reported_once_and_those_left_behind_are_not():
    cycles = Cycles({node_id: node("Pass") for node_id in "abcde"})
    for node_id in "abcd":
        cycles.enter(node_id)
    assert list(cycles.close(2)) == ["c", "d"] and cycles.close(2) == {}
    found = cycles.close(1)
    assert list(found) == ["b"]
    assert found["b"]["details"] == "b (Pass) -> c (Pass) -> d (Pass) -> b (Pass)"
    assert found["b"]["extra_info"] == {"node_id": "b", "cycle_nodes": ["b", "c", "d"]}
    cycles.leave()
    cycles.enter("e")
    assert list(cycles.close(0)) == ["a", "e"] and cycles.count == 4


def test_circles_are_found_where_they_are_and_nowhere_else():
    dice = random.Random(5)
    classes = {**CLASSES, "Pass": declare({}, {"a": ("T",), "b": ("T",)})}
    for _ in range(200):
        size = dice.randint(1, 9)
        links = {str(index): [str(dice.randrange(size)) for _ in range(dice.randint(0, 2))] for index in range(size)}
        prompt = {one: node("Pass", **dict(zip("ab", [(parent, 0) for parent in parents]))) for one, parents in links.items()}
        prompt |= {f"s{one}": node("Show", a=(one, 0)) for one in links}
        _, _, _, node_errors = check(prompt, classes=classes)
        members = members_by_force(links)
        assert set(node_errors) <= members and bool(node_errors) == bool(members), links
        assert all(len(entry["errors"]) == 1 for entry in node_errors.values())


def test_a_node_of_a_long_name_is_named_by_its_beginning():
    (found,) = book(["n" * 999]).close(0).values()
    assert len(found["details"]) < 500 and found["extra_info"]["node_id"] == "n" * 999


def test_the_answer_to_thousands_of_nodes_in_a_circle_is_small():
    size = 8000
    _, error, _, node_errors = check(ring(size, s=node("Show", a=("0", 0))))
    texts = [one for entry in node_errors.values() for one in entry["errors"]]
    assert 1000 < len(node_errors) < size and f"{size - len(node_errors)} more nodes have errors" in error["details"]
    assert len(error["details"]) < 20_000 and max(len(one["details"]) for one in texts) < 2000
    listed = [len(one["extra_info"]["cycle_nodes"]) for one in texts]
    assert set(listed) == {MIN_CYCLE_NODES}


def test_after_a_hundred_circles_only_their_ends_are_written_out():
    path = [str(index) for index in range(500)]
    cycles = book(path)
    found = [cycles.close(start) for start in range(499, -1, -1)]
    assert all(len(one) == 1 for one in found)
    (error,) = found[MAX_CYCLES + 50].values()
    assert error["details"] == "349 (Pass) -> … -> 349 (Pass)"
    assert len(error["extra_info"]["cycle_nodes"]) <= 151
    (error,) = book(["x"]).close(0).values()
    assert error["details"] == "x (Pass) -> x (Pass)"
