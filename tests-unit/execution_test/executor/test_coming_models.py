"""The program around the executor hears of models as soon as they are there and nodes that still wait will use them."""

import pytest
from executor_harness import Log, benches, make_node, node

import execution
from comfy_execution.executor.coming_models import model_values

LOADER = make_node(lambda self, name: (f"model {name}", f"clip {name}"), ["name"], returns=("MODEL", "CLIP"))
ENCODE = make_node(lambda self, clip, text: (f"{text} by {clip}",), ["clip", "text"], returns=("CONDITIONING",))
SAMPLE = make_node(lambda self, model, words: (f"{words} with {model}",), ["model", "words"], returns=("LATENT",))


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def bench(monkeypatch, log):
    yield from benches(monkeypatch, log)


def prompt(text):
    return {
        "1": node("Loader", name="a"),
        "2": node("Encode", clip=("1", 1), text=text),
        "3": node("Sample", model=("1", 0), words=("2", 0)),
        "4": node("Sink", value=("3", 0)),
    }


def test_models_are_told_before_the_nodes_that_use_them_run(monkeypatch, bench):
    told = []
    made = bench(Loader=LOADER, Encode=ENCODE, Sample=SAMPLE)
    monkeypatch.setattr(execution._surroundings, "expects", lambda models: told.append((list(models), len(made.executed()))), raising=False)
    made.run(prompt("one"))
    assert told == [(["model a"], 1)], "once the loader has run"
    made.run(prompt("two"))
    assert told[1:] == [(["model a"], 0)], "from the cache, before any node runs"
    made.run(prompt("two"))
    assert len(told) == 2, "nothing is left to run"


def test_what_a_node_was_given_is_told_once_it_has_run(monkeypatch, bench):
    told = []
    made = bench(Loader=LOADER, Encode=ENCODE, Sample=SAMPLE)
    monkeypatch.setattr(execution._surroundings, "called", lambda class_def, inputs: told.append((class_def, inputs)), raising=False)
    made.run(prompt("one"))
    assert [inputs for class_def, inputs in told if class_def is SAMPLE] == [{"model": ["model a"], "words": ["one by clip a"]}]
    count = len(told)
    made.run(prompt("one"))
    assert len(told) == count, "nothing has run"


def test_only_sockets_of_models_count():
    assert model_values(LOADER, [["a", "b"], ["clip"]]) == ["a", "b"]
    assert model_values(ENCODE, [["words"]]) == [] and model_values(object, [["words"]]) == []
