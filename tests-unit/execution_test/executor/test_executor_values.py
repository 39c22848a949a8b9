"""Small parts of the executor: collecting inputs, reading results, showing errors, choosing caches and inference mode."""

import json
import math
import sys
import types

import pytest
from executor_harness import make_node

from comfy_execution.executor import caches as executor_caches
from comfy_execution.executor.caches import CacheEntry, CacheSet, CacheType
from comfy_execution.executor.errors import MAX_INPUTS_CHARS, error_details, format_inputs, format_value, full_type_name
from comfy_execution.executor.inference_scope import inference_scope
from comfy_execution.executor.inputs import get_input_data
from comfy_execution.executor.results import json_safe, merge_ui, merge_values, printable, read_return, valid_ui_output
from comfy_execution.graph_utils import ExecutionBlocker

# --- inputs ---


class Results:
    """Finished nodes: ``a`` has one output of two values."""

    def get_cache(self, from_node_id, to_node_id):
        return CacheEntry(None, [[1, 2]]) if from_node_id == "a" else None


def collect(inputs, source=None, **attributes):
    class_def = make_node(lambda self: (), {"x": ("INT", {}), "raw": ("*", {"rawLink": True})}, **attributes)
    return get_input_data(inputs, class_def, "me", source)


@pytest.mark.parametrize(
    "value, collected, missing",
    [
        (5, {"x": [5]}, {}),
        (["a", 0], {"x": [1, 2]}, {}),
        (["a", 1], {"x": (None,)}, {"x": True}),
        (["a", -1], {"x": (None,)}, {"x": True}),
        (["unfinished", 0], {"x": (None,)}, {"x": True}),
        ([1, 2], {"x": [[1, 2]]}, {}),
    ],
)
def test_an_input_is_a_list_of_a_constant_or_what_its_link_delivers(value, collected, missing):
    assert collect({"x": value}, Results())[:2] == (collected, missing)


def test_without_results_every_link_is_missing():
    assert collect({"x": ["a", 0], "raw": ["a", 0], "other": 3, "linked": ["a", 0]})[:2] == (
        {"x": (None,), "raw": [["a", 0]], "linked": (None,)},
        {"x": True, "linked": True},
    )


def test_hidden_values_without_a_prompt_are_empty():
    hidden = {"hidden": {"p": "PROMPT", "d": "DYNPROMPT", "u": ("UNIQUE_ID",), "e": "EXTRA_PNGINFO", "odd": 5}}
    assert collect({}, sections=hidden)[0] == {"p": [{}], "d": [None], "u": ["me"], "e": [None]}


class Unhashable(str):
    """Equal to itself alone, as packs' types for any socket are, and so without a hash."""

    __hash__ = None

    def __eq__(self, other):
        return self is other


def test_a_hidden_value_may_be_declared_by_a_text_without_a_hash():
    assert collect({}, sections={"hidden": {"u": Unhashable("UNIQUE_ID"), "odd": Unhashable("*")}})[0] == {"u": ["me"]}


# --- results ---


def test_sockets_are_merged_by_their_list_flags():
    class_def = make_node(lambda self: (), returns=("*", "*", "*"), OUTPUT_IS_LIST=(False, True))
    blocker = ExecutionBlocker(None)
    calls = [(1, [10, 11], "a"), None, (2, blocker, "b")]
    assert merge_values(calls, class_def) == [[1, 2], [10, 11, blocker], ["a", "b"]]
    assert merge_values([None], class_def) == []


def test_calls_that_disagree_on_the_number_of_outputs_are_an_error():
    with pytest.raises(IndexError, match="1 outputs"):
        merge_values([(1, 2), (1,)], make_node(lambda self: ()))


def test_an_expansion_without_a_result_has_no_outputs():
    read = read_return({"expand": {"1": {}}}, make_node(lambda self: ()))
    assert read.values is None and read.expand == {"1": {}}


class Number:
    """Looks like a scalar of an array library."""

    shape = ()

    def item(self):
        return 2.5


@pytest.mark.parametrize(
    "value, safe",
    [
        ({"a": (1, 2.5, None, True, "x")}, {"a": [1, 2.5, None, True, "x"]}),
        ({1: math.nan, "b": [math.inf]}, {"1": None, "b": [None]}),
        (Number(), 2.5),
        ({"s": {3}}, {"s": [3]}),
    ],
)
def test_ui_becomes_what_json_can_carry(value, safe):
    assert json_safe(value) == safe
    json.dumps(json_safe(value), allow_nan=False)


def test_ui_of_any_shape_is_merged_or_left_out(caplog):
    assert merge_ui([{"v": [1]}, None, {"v": (2,), "w": "text"}, {"w": 3}], "Node") == {"v": [1, 2], "w": ["text", 3]}
    assert merge_ui([5], "Node") == {} and "ui of type int" in caplog.text


@pytest.mark.parametrize(
    "ui, output", [({"output": {"v": [1]}, "meta": {}}, {"v": [1]}), ({"output": 5}, None), (None, None), ("text", None), ({}, None)]
)
def test_cached_ui_of_another_shape_is_refused(ui, output):
    assert valid_ui_output(ui) == output


# --- errors ---


class Mute:
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


def test_values_are_shown_bounded_and_never_fail():
    assert [format_value(value) for value in (None, 1, 2.5, True, "x")] == [None, 1, 2.5, True, "x"]
    assert format_value(math.nan) == "nan" and "cannot be printed" in format_value(Mute())
    assert len(format_value("x" * 100_000)) < 5000
    assert len(format_value(list(range(10**6)))) < 5000
    assert isinstance(format_value([Mute()]), str) and isinstance(format_value({Mute(): 1}), str)
    assert printable("x" * 10, 3) == "xxx… (10 characters)"


def test_all_inputs_together_are_bounded():
    shown = format_inputs({f"i{index}": ["x" * 4000] * 50 for index in range(40)})
    assert len(shown) == 40 and shown["i39"] == ["…"] and shown["i0"][-1] == "… (50 items)"
    assert len(json.dumps(shown)) < 3 * MAX_INPUTS_CHARS
    assert format_inputs(None) == {}


def test_error_details_name_the_type_and_hint():
    details = error_details("1", json.JSONDecodeError("bad", "", 0), "try this", {"x": [1]})
    assert details["exception_type"] == "json.decoder.JSONDecodeError" and details["exception_message"].endswith("\ntry this")
    assert details["current_inputs"] == {"x": [1]} and details["traceback"] == []
    assert full_type_name(ValueError) == "ValueError"


# --- caches ---


@pytest.mark.parametrize(
    "cache_type, name",
    [
        (None, "HierarchicalCache"),
        (CacheType.CLASSIC, "HierarchicalCache"),
        (CacheType.LRU, "LRUCache"),
        (CacheType.RAM_PRESSURE, "RAMPressureCache"),
        (CacheType.NONE, "NullCache"),
    ],
)
def test_each_mode_has_its_cache(cache_type, name):
    caches = CacheSet(cache_type, {"lru": 7, "ram": 2.0})
    assert type(caches.outputs).__name__ == name and caches.all == [caches.outputs, caches.objects]
    assert type(caches.objects).__name__ == ("NullCache" if cache_type is CacheType.NONE else "HierarchicalCache")
    assert cache_type is not CacheType.LRU or caches.outputs.max_size == 7
    assert "outputs" in caches.recursive_debug_dump()


def test_ram_is_looked_at_now_and_then_and_only_in_its_mode():
    now_s, asked = [0.0], []
    caches = CacheSet(CacheType.RAM_PRESSURE, {"ram": 2.0}, clock=lambda: now_s[0])
    caches.outputs.relieve = asked.append
    for _ in range(10):
        caches.relieve_ram()
        now_s[0] += executor_caches.RAM_CHECK_INTERVAL_S / 4
    assert asked == [2 * 1024**3] * 3
    CacheSet(CacheType.CLASSIC).relieve_ram()


# --- inference mode ---


@pytest.fixture
def fake_torch(monkeypatch):
    """No torch is imported, and importing it gives a stand-in that notes inference mode."""
    entered = []

    class InferenceMode:
        def __enter__(self):
            entered.append("in")

        def __exit__(self, *error):
            entered.append("out")

    module = types.ModuleType("torch")
    module.inference_mode = InferenceMode
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr("importlib.import_module", lambda name: sys.modules.setdefault(name, module))
    yield entered
    sys.modules.pop("torch", None)


def class_in(monkeypatch, **module_globals):
    module = types.ModuleType("some_pack")
    vars(module).update(module_globals)
    monkeypatch.setitem(sys.modules, "some_pack", module)
    return type("Node", (), {"__module__": "some_pack"})


def test_nodes_that_name_torch_run_in_inference_mode(monkeypatch, fake_torch):
    with inference_scope(class_in(monkeypatch, torch="lazy")):
        assert fake_torch == ["in"]
    assert fake_torch == ["in", "out"]


def test_nodes_that_do_not_name_torch_do_not_import_it(monkeypatch, fake_torch):
    plain = class_in(monkeypatch)
    with inference_scope(plain):
        pass
    assert fake_torch == [] and "torch" not in sys.modules
    with inference_scope(class_in(monkeypatch, torch="lazy")), inference_scope(plain):
        pass
    assert fake_torch == ["in", "in", "out", "out"]


def test_classes_of_unknown_modules_and_torch_half_imported_run_as_they_are(monkeypatch, fake_torch):
    with inference_scope(type("Node", (), {"__module__": "nowhere"})):
        pass
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    with inference_scope(class_in(monkeypatch)):
        pass
    assert fake_torch == []
