"""Equal parameters and code give former tensors; anything else is computed; what was changed is computed again."""

import asyncio

import pytest
import torch

from comfy.patch_identity.content_memo import ContentMemo
from comfy.patch_identity.fingerprints import fingerprints
from comfy.patching.patched_models import content_memo, forget
from comfy_api.latest import ComfyAPI, ComfyAPISync


@pytest.fixture
def memo():
    made = ContentMemo(fingerprints(), max_entries=3, max_bytes=1000)
    yield made
    assert made.check() == []


class Doubling:
    calls = 0

    def __init__(self, tensor):
        self.tensor = tensor

    def patch_identity_key(self):
        return ()

    def __call__(self):
        type(self).calls += 1
        return {"twice": self.tensor * 2, "text": "a"}


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(Doubling, "calls", 0)
    return lambda: Doubling.calls


def ask(memo, tensor, *others):
    return memo.remembered((tensor, others), Doubling(tensor))


def test_equal_parameters_give_the_former_result(memo, calls):
    first = ask(memo, torch.ones(3))
    with torch.inference_mode():
        again = ask(memo, torch.ones(3))
    assert again is first and calls() == 1 and not first["twice"].is_inference()
    assert torch.equal(ask(memo, torch.zeros(3))["twice"], torch.zeros(3)) and ask(memo, torch.ones(3), 1) is not first
    figures = memo.describe()
    assert (figures["hits"], figures["misses"], figures["entries"], figures["bytes"]) == (1, 3, 3, 36)


@pytest.mark.parametrize("change", [lambda made: made["twice"].add_(1), lambda made: made.update(text="b")], ids=["tensor", "dict"])
def test_a_result_that_was_changed_is_computed_again(memo, calls, change):
    made = ask(memo, torch.ones(3))
    change(made)
    again = ask(memo, torch.ones(3))
    assert torch.equal(again["twice"], torch.full((3,), 2.0)) and again["text"] == "a"
    assert calls() == 2 and memo.describe()["outdated"] == 1


def test_a_parameter_that_was_changed_is_another(memo, calls):
    tensor = torch.ones(3)
    ask(memo, tensor)
    tensor.add_(1)
    assert torch.equal(ask(memo, tensor)["twice"], torch.full((3,), 4.0)) and calls() == 2


def test_entries_and_bytes_are_bounded(memo, calls):
    for number in range(5):
        ask(memo, torch.ones(3), number)
    assert memo.describe()["entries"] == 3 and memo.describe()["evictions"] == 2
    ask(memo, torch.ones(3), 4)
    assert calls() == 5
    ask(memo, torch.ones(230))
    assert memo.describe()["entries"] == 3 and memo.describe()["bytes"] == 230 * 4 + 24
    ask(memo, torch.ones(1000))
    assert memo.describe()["refused"] == 1 and any("4000 bytes" in reason for reason in memo.describe()["reasons"])
    assert memo.clear() == 230 * 4 + 24 and memo.describe()["entries"] == 0


def test_what_cannot_be_compared_is_computed_each_time(memo, calls):
    for _ in range(2):
        memo.remembered(object(), Doubling(torch.ones(1)))
    assert calls() == 2 and memo.describe()["unique"] == 2 and any("object" in reason for reason in memo.describe()["reasons"])
    assert memo.remembered(1, object).__class__ is object and memo.describe()["refused"] == 1


def test_nodes_ask_through_the_api_and_free_forgets(calls):
    forget()
    tensor = torch.ones(2)
    first = ComfyAPISync().patching.remembered(tensor, Doubling(tensor))
    assert asyncio.run(ComfyAPI().patching.remembered(tensor, Doubling(tensor))) is first and calls() == 1
    assert content_memo().describe()["bytes"] == 8 and forget() >= 8 and content_memo().describe()["entries"] == 0
