"""The executor's memo: equal inputs and code give former patched models again, and never other pictures than without it."""

import gc
import random
import weakref

import pytest
import torch
from executor_harness import Log, benches, make_node, node
from residency_models import MIB, Layers, batch, management, patcher_of

import comfy.model_management
from comfy.cli_args import args
from comfy.patch_identity.fingerprints import fingerprints
from comfy.patch_identity.registry import PatchRegistry
from comfy.patching.node_memo import NodeMemo
from comfy.patching.patch_carrier import PatcherCarrier
from comfy.patching.patched_models import forget, node_memo
from execution import CacheType

MODEL = {"model": ("MODEL",), "strength": ("FLOAT", {})}


class Nodes:
    """Node classes over one base, with what they were called with."""

    def __init__(self):
        self.base = patcher_of(Layers())
        self.calls = []
        self.answers = []

    def classes(self):
        return {
            "Load": make_node(lambda own, seed: (self.base.clone(),), ["seed"], returns=("MODEL",)),
            "Tensor": make_node(lambda own, value: (torch.full((64, 32), float(value)),), ["value"]),
            "Patch": make_node(self.patch, MODEL, returns=("MODEL",), PATCH_MEMO=True),
            "Attend": make_node(self.attend, {**MODEL, "tensor": ("*", {})}, returns=("MODEL",), PATCH_MEMO=True),
            "Both": make_node(self.both, {**MODEL, "other": ("MODEL",)}, returns=("MODEL", "MODEL", "FLOAT"), PATCH_MEMO=True),
            "Odd": make_node(lambda own, model, strength: (object(),), MODEL, returns=("MODEL",), PATCH_MEMO=True),
            "Fails": make_node(self.fail, MODEL, returns=("MODEL",), PATCH_MEMO=True),
            "Use": make_node(self.use, {"model": ("MODEL",), "seed": ("INT", {})}, returns=(), is_output=True),
        }

    def patch(self, model, strength):
        self.calls.append(("Patch", strength))
        clone = model.clone()
        clone.add_patches({"last.weight": (torch.full((32, 32), 0.5),)}, strength)
        return (clone,)

    def attend(self, model, strength, tensor):
        self.calls.append(("Attend", strength))
        clone = model.clone()
        clone.add_patches({"first.weight": (tensor,)}, strength)
        clone.set_model_attn2_replace(Replacement(tensor), "input", 1)
        return (clone,)

    def both(self, model, strength, other):
        self.calls.append(("Both", strength))
        return self.patch(model, strength)[0], other, strength

    def fail(self, model, strength):
        raise ValueError("no")

    def use(self, model, seed):
        comfy.model_management.load_models_gpu([model])
        self.answers.append(model.model(batch()))
        return {"ui": {}}


def numbers(answer):
    return tuple(answer.flatten().tolist())


class Replacement:
    def __init__(self, tensor):
        self.tensor = tensor


@pytest.fixture(params=[None, MIB], ids=["processor", "simulated"])
def nodes(request):
    with management(request.param):
        yield Nodes()


@pytest.fixture(autouse=True)
def empty_memo():
    forget()
    yield
    assert node_memo().check() == []
    forget()


@pytest.fixture
def bench(monkeypatch):
    yield from benches(monkeypatch, Log())


def prompt(strength=0.5, value=1, seed=0, **patch):
    return {
        "load": node("Load", seed=seed),
        "tensor": node("Tensor", value=value),
        "patch": node("Patch", model=("load", 0), strength=strength),
        "attend": node("Attend", model=("patch", 0), strength=2.0, tensor=("tensor", 0)),
        "use": node("Use", model=("attend", 0), seed=seed),
    }


def test_a_lost_result_is_not_built_again(bench, nodes):
    runner = bench(cache_type=CacheType.NONE, **nodes.classes())
    before = node_memo().describe()
    for seed in range(4):
        runner.run(prompt(seed=seed))
    assert nodes.calls == [("Patch", 0.5), ("Attend", 2.0)]
    assert all(torch.equal(answer, nodes.answers[0]) for answer in nodes.answers)
    after = node_memo().describe()
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"], after["entries"]) == (6, 2, 2)
    assert after["bytes"] == (32 * 32 + 64 * 32) * 4


def test_another_input_or_base_is_built(bench, nodes):
    runner = bench(cache_type=CacheType.NONE, **nodes.classes())
    runner.run(prompt())
    runner.run(prompt(strength=0.75))
    assert nodes.calls[2:] == [("Patch", 0.75), ("Attend", 2.0)]
    runner.run(prompt(value=3))
    assert nodes.calls[4:] == [("Attend", 2.0)]
    nodes.base = patcher_of(Layers(seed=1))
    runner.run(prompt())
    assert nodes.calls[5:] == [("Patch", 0.5), ("Attend", 2.0)]
    assert len(set(map(numbers, nodes.answers))) == 4


def test_other_code_is_run(bench, nodes, monkeypatch):
    classes = nodes.classes()
    runner = bench(cache_type=CacheType.NONE, **classes)
    runner.run(prompt())

    def patch(own, model, strength):
        nodes.calls.append("new")
        return (model.clone(),)

    monkeypatch.setattr(classes["Patch"], "go", patch)
    runner.run(prompt())
    assert nodes.calls[2] == "new"


def test_the_switch_turns_it_off(bench, nodes, monkeypatch):
    monkeypatch.setattr(args, "no_node_memo", True)
    runner = bench(cache_type=CacheType.NONE, **nodes.classes())
    for seed in range(2):
        runner.run(prompt(seed=seed))
    assert len(nodes.calls) == 4


def test_outputs_that_are_inputs_or_numbers_are_handed_on(bench, nodes):
    runner = bench(cache_type=CacheType.NONE, **nodes.classes())
    graph = {
        "load": node("Load", seed=0),
        "both": node("Both", model=("load", 0), strength=0.5, other=("load", 0)),
        "patch": node("Patch", model=("both", 1), strength=("both", 2)),
        "use": node("Use", model=("both", 0), seed=0),
        "plain": node("Use", model=("both", 1), seed=0),
        "same": node("Use", model=("patch", 0), seed=0),
    }
    for _ in range(2):
        runner.run(graph)
    assert [name for name, _ in nodes.calls].count("Both") == 1
    first, second = (sorted(map(numbers, answers)) for answers in (nodes.answers[:3], nodes.answers[3:]))
    assert first == second and len(set(first)) == 2


def test_what_is_not_a_patched_model_is_not_kept_and_errors_pass(bench, nodes):
    runner = bench(cache_type=CacheType.NONE, **nodes.classes())
    refused = node_memo().describe()["refused"]
    graph = {"load": node("Load", seed=0), "odd": node("Odd", model=("load", 0), strength=1.0), "sink": node("Sink", value=("odd", 0))}
    for _ in range(2):
        runner.run(graph)
    assert node_memo().describe()["refused"] == refused + 2
    graph["bad"], graph["sink"] = node("Fails", model=("load", 0), strength=1.0), node("Sink", value=("bad", 0))
    for _ in range(2):
        runner.run(graph)
        assert runner.error()["exception_message"].startswith("no")


def test_patches_changed_since_are_built_again(bench, nodes):
    seen = []
    classes = {**nodes.classes(), "Keep": make_node(lambda own, model: seen.append(model) or (), {"model": ("MODEL",)}, (), is_output=True)}
    runner = bench(cache_type=CacheType.NONE, **classes)
    graph = {**prompt(), "keep": node("Keep", model=("attend", 0))}
    runner.run(graph)
    replaced = seen[0].model_options["transformer_options"]["patches_replace"]["attn2"]["input", 1]
    with torch.inference_mode():
        replaced.tensor.add_(1)
    runner.run(graph)
    assert [name for name, _ in nodes.calls] == ["Patch", "Attend", "Attend"]
    assert torch.equal(nodes.answers[0], nodes.answers[1])


def test_calls_are_bounded_and_die_with_their_base():
    with management(None):
        memo = NodeMemo(PatchRegistry(PatcherCarrier(), fingerprints(), max_entries=3), fingerprints(), max_calls=2)
        base = patcher_of(Layers())
        for strength in range(5):
            asked = memo.ask(Nodes, {"model": [base], "strength": [strength]})
            clone = base.clone()
            clone.add_patches({"last.weight": (torch.ones(32, 32),)}, strength)
            asked.keep([[clone]])
        assert memo.ask(Nodes, {"model": [base], "strength": [4]}).outputs is not None
        assert memo.ask(Nodes, {"model": [base], "strength": [0]}).outputs is None
        assert memo.describe()["calls"] == 2 and memo.describe()["entries"] == 3 and memo.check() == []
        module = weakref.ref(base.model)
        del base, clone, asked
        gc.collect()
        assert module() is None
        assert memo.describe()["entries"] == 0 and memo.check() == []


def test_what_cannot_be_compared_is_called_each_time(nodes):
    memo = NodeMemo(PatchRegistry(PatcherCarrier(), fingerprints()), fingerprints())
    for _ in range(2):
        asked = memo.ask(Nodes, {"model": [nodes.base], "thing": [Nodes]})
        asked.keep([[nodes.base.clone()]])
    assert memo.describe()["hits"] == 1
    asked = memo.ask(Nodes, {"model": [nodes.base], "thing": [Replacement(None)]})
    asked.keep([[nodes.base.clone()]])
    figures = memo.describe()
    assert asked.outputs is None and figures["unique"] == 1 and "Replacement" in next(iter(figures["reasons"]))


@pytest.mark.parametrize("cache", [CacheType.NONE, CacheType.CLASSIC])
@pytest.mark.parametrize("seed", range(2))
def test_random_workflows_give_the_same_answers_without_it(bench, nodes, monkeypatch, seed, cache):
    source = random.Random(seed)
    graphs = [random_graph(source) for _ in range(12)]
    answers, calls = [], []
    for is_off in (True, False):
        monkeypatch.setattr(args, "no_node_memo", is_off)
        forget()
        nodes.answers, nodes.calls = [], []
        runner = bench(cache_type=cache, **nodes.classes())
        for graph in graphs:
            runner.run(graph)
        answers.append(nodes.answers)
        calls.append(len(nodes.calls))
    assert len(answers[0]) == len(answers[1]) >= 12
    assert all(torch.equal(plain, recalled) for plain, recalled in zip(*answers, strict=True))
    assert calls[1] < calls[0]


def random_graph(source):
    graph, last = {"load": node("Load", seed=source.randrange(2)), "tensor": node("Tensor", value=source.randrange(2))}, ("load", 0)
    for index in range(source.randrange(1, 4)):
        kind, strength = source.choice(["Patch", "Attend", "Both"]), source.choice([0.5, 1.0])
        others = {"Patch": {}, "Attend": {"tensor": ("tensor", 0)}, "Both": {"other": ("load", 0)}}[kind]
        graph[f"n{index}"] = node(kind, model=last, strength=strength, **others)
        last = (f"n{index}", source.randrange(2) if kind == "Both" else 0)
    graph["use"] = node("Use", model=last, seed=source.randrange(1000))
    return graph
