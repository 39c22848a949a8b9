"""The states of a cached model: the table of moves is kept to, and drawn in docs/architecture.md as it is."""

import pathlib
import re

import pytest
from ram_cache_fakes import Key, get

from comfy.ram_model_cache import values
from comfy.ram_model_cache.states import MOVES, State
from comfy.ram_model_cache.values import Entry

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "architecture.md"
A, B = Key("A"), Key("B")


def entry(state):
    made = Entry("key")
    made._state = state
    return made


@pytest.mark.parametrize("start", State)
@pytest.mark.parametrize("end", State)
def test_an_entry_makes_the_moves_of_the_table_and_no_others(start, end):
    one = entry(start)
    if (start, end) in MOVES:
        one.become(end)
        assert one.state is end
    else:
        with pytest.raises(ValueError, match=f"is {start.value} and cannot become {end.value}"):
            one.become(end)
        assert one.state is start


def test_the_diagram_in_the_docs_draws_the_table():
    if not PAGE.is_file():
        pytest.skip("the docs are not part of this checkout")
    blocks = [block for block in re.findall(r"```mermaid\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL) if "RESERVED" in block]
    assert len(blocks) == 1, "one diagram, and no other"
    names = {"[*]": State.ABSENT, **{state.name: state for state in State if state is not State.ABSENT}}
    drawn = re.findall(r"^    (\S+) --> (\S+): (.+)$", blocks[0], re.MULTILINE)
    assert {(names[start], names[end]): label for start, end, label in drawn} == dict(MOVES)


def test_every_move_is_made(make, monkeypatch):
    """A day in the life of two models, in which each edge of the diagram is walked."""
    made = set()

    class Noted(Entry):
        def become(self, state):
            made.add((self.state, state))
            super().become(state)

    monkeypatch.setattr("comfy.ram_model_cache.reservations.Entry", Noted)
    cache = make(50)
    used, _ = get(cache, A)
    cache.clear()
    again, _ = get(cache, A)
    del used, again
    cache.clear()
    big, _ = get(cache, B, size=60)
    del big
    cache.tick()
    with pytest.raises(ZeroDivisionError):
        cache.fetch({A: 10}, lambda missing: 1 // 0)
    assert made == set(MOVES)
    assert values.MOVES is MOVES
