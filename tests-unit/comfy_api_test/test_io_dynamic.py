"""Inputs that grow: how they print, how a prompt expands them, and what execute receives."""

import pytest

from comfy_api.latest import io

PREFIXED = io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image_", min=2, max=4)
NAMED = io.Autogrow.TemplateNames(io.Float.Input("value", default=1.0), names=["a", "b"], min=1)


def combo():
    inner = io.DynamicCombo.Input("inner", options=[io.DynamicCombo.Option("deep", [io.Mask.Input("mask")])])
    grown = io.Autogrow.Input("many", template=io.Autogrow.TemplatePrefix(io.Image.Input("i"), prefix="m", min=0, max=2))
    full = io.DynamicCombo.Option("full", [io.Int.Input("count", min=1), io.Image.Input("extra", optional=True), inner, grown])
    return io.DynamicCombo.Input("mode", options=[full, io.DynamicCombo.Option("none", [])])


def node_of(*inputs, **schema):
    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="Node", inputs=list(inputs), **schema)

        @classmethod
        def execute(cls, **kwargs):
            return io.NodeOutput()

    return Node


def entry(declared):
    sections = {}
    io.add_to_dict_v1(declared, sections)
    return sections["optional" if declared.optional else "required"][declared.id]


def test_autogrow_prints_its_template():
    image = {"required": {"image": ("IMAGE", {})}}
    value = {"required": {"value": ("FLOAT", {"default": 1.0, "forceInput": True})}}
    assert entry(io.Autogrow.Input("x", template=PREFIXED)) == (
        "COMFY_AUTOGROW_V3", {"template": {"input": image, "prefix": "image_", "min": 2, "max": 4}},
    )  # fmt: skip
    assert entry(io.Autogrow.Input("x", template=NAMED)) == (
        "COMFY_AUTOGROW_V3", {"template": {"input": value, "names": ["a", "b"], "min": 1}},
    )  # fmt: skip


def test_dynamic_combo_prints_every_option_with_its_inputs():
    kind, options = entry(combo())
    assert kind == "COMFY_DYNAMICCOMBO_V3"
    assert [option["key"] for option in options["options"]] == ["full", "none"]
    first, second = options["options"]
    assert first["inputs"]["required"]["count"] == ("INT", {"min": 1})
    assert first["inputs"]["optional"] == {"extra": ("IMAGE", {})}
    assert second["inputs"] == {"required": {}}


def test_dynamic_slot_is_optional_and_prints_what_it_brings():
    slot = io.DynamicSlot.Input(io.Int.Input("x", default=3), [io.Image.Input("sub")], tooltip="t")
    kind, options = entry(slot)
    assert (kind, slot.optional, slot.slot.tooltip) == ("COMFY_DYNAMICSLOT_V3", True, "t")
    assert options == {"tooltip": "t", "slotType": "INT", "forceInput": True, "inputs": {"required": {"sub": ("IMAGE", {})}}}


def test_match_type_prints_its_template_and_is_listed_for_outputs():
    template = io.MatchType.Template("t", [io.Image, io.Mask])
    assert entry(io.MatchType.Input("x", template)) == (
        "COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "IMAGE,MASK"}},
    )  # fmt: skip
    assert io.MatchType.Template("any").as_dict()["allowed_types"] == "*"
    info = node_of(io.MatchType.Input("x", template), outputs=[io.Int.Output(), io.MatchType.Output(template)]).GET_NODE_INFO_V1()
    assert info["output"] == ["INT", "COMFY_MATCHTYPE_V3"]
    assert info["output_matchtypes"] == [None, "t"] and info["output_name"][1] == "MATCHTYPE"


def test_match_type_refuses_values_that_are_not_types():
    with pytest.raises(ValueError, match="int is not a type"):
        io.MatchType.Template("t", [int])


def test_multi_type_joins_names_and_takes_over_a_widget():
    assert entry(io.MultiType.Input("x", [io.Image, io.Mask, io.Image]))[0] == "IMAGE,MASK"
    number = io.MultiType.Input(io.Float.Input("x", default=2.0, tooltip="own", optional=True), [io.Int], tooltip="outer")
    assert number.optional and entry(number) == ("FLOAT,INT", {"default": 2.0, "tooltip": "own", "widgetType": "FLOAT"})


def test_autogrow_limits_are_checked_with_the_input_named():
    with pytest.raises(ValueError, match="'image'.*max is 101"):
        io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="p", max=101)
    with pytest.raises(ValueError, match="'image'.*negative"):
        io.Autogrow.TemplateNames(io.Image.Input("image"), ["a"], min=-1)
    with pytest.raises(ValueError, match="'mode'.*dynamic"):
        io.Autogrow.TemplatePrefix(combo(), prefix="p")
    assert len(io.Autogrow.TemplateNames(io.Image.Input("i"), [str(n) for n in range(150)]).names) == 100


def test_template_input_is_copied_so_the_authors_object_keeps_its_widget():
    value = io.Float.Input("value")
    io.Autogrow.TemplatePrefix(value, prefix="v")
    assert value.force_input is None


def test_without_live_inputs_groups_stay_as_declared():
    assert set(node_of(combo(), io.Image.Input("base")).INPUT_TYPES()["required"]) == {"mode", "base"}


def test_autogrow_expands_to_required_and_optional_sockets():
    expanded = node_of(io.Autogrow.Input("x", template=PREFIXED)).INPUT_TYPES(live_inputs={})
    assert list(expanded["required"]) == ["x.image_0", "x.image_1"] and list(expanded["optional"]) == ["x.image_2", "x.image_3"]
    optional = io.Autogrow.TemplatePrefix(io.Image.Input("i", optional=True), prefix="p", min=2, max=2)
    assert node_of(io.Autogrow.Input("x", template=optional)).INPUT_TYPES(live_inputs={})["required"] == {}


def test_dynamic_combo_expands_what_is_chosen_at_every_depth():
    expanded = node_of(combo(), hidden=[io.Hidden.prompt]).INPUT_TYPES(live_inputs={"mode": "full", "mode.inner": "deep"})
    assert list(expanded["required"]) == ["mode", "mode.count", "mode.inner", "mode.inner.mask"]
    assert list(expanded["optional"]) == ["mode.extra", "mode.many.m0", "mode.many.m1"]
    assert expanded["hidden"] == {"prompt": ("PROMPT",)}
    assert list(node_of(combo()).INPUT_TYPES(live_inputs={"mode": "none"})["required"]) == ["mode"]


def test_dynamic_combo_keeps_a_missing_choice_required_and_shows_unknown_keys_as_a_combo():
    node = node_of(combo())
    assert node.INPUT_TYPES(live_inputs={})["required"]["mode"][0] == "COMFY_DYNAMICCOMBO_V3"
    assert node.INPUT_TYPES(live_inputs={"mode": "typo"})["required"]["mode"] == (
        "COMBO", {"multiselect": False, "options": ["full", "none"]},
    )  # fmt: skip


def test_dynamic_slot_expands_only_when_named():
    node = node_of(io.DynamicSlot.Input(io.Image.Input("x"), [io.Int.Input("sub")]))
    assert node.INPUT_TYPES(live_inputs={}) == {"required": {}, "optional": {}}
    expanded = node.INPUT_TYPES(live_inputs={"x": ["1", 0]})
    assert expanded["optional"]["x"][0] == "IMAGE" and list(expanded["required"]) == ["x.sub"]


@pytest.mark.parametrize(
    ("declared", "flat", "nested"),
    [
        (io.Autogrow.Input("x", template=PREFIXED), {"x.image_0": 1, "x.image_3": 2, "y": 3}, {"x": {"image_0": 1, "image_3": 2}, "y": 3}),
        (io.Autogrow.Input("x", template=NAMED), {}, {"x": {}}),
        (combo(), {"mode": "none"}, {"mode": {"mode": "none"}}),
        (
            combo(), {"mode": "full", "mode.count": 4, "mode.inner": "deep", "mode.inner.mask": "M", "mode.many.m1": "I"},
            {"mode": {"mode": "full", "count": 4, "extra": None, "inner": {"inner": "deep", "mask": "M"}, "many": {"m1": "I"}}},
        ),
        (combo(), {}, {}),
        (combo(), {"mode": ["full"], "mode.count": [4, 5], "mode.inner": ["deep"]},
         {"mode": {"mode": ["full"], "count": [4, 5], "extra": None, "inner": {"inner": ["deep"], "mask": None}, "many": {}}}),
        (io.DynamicSlot.Input(io.Image.Input("x"), [io.Int.Input("sub")]), {"x": "I", "x.sub": 2}, {"x": {"x": "I", "sub": 2}}),
    ],
)  # fmt: skip
def test_flat_arguments_are_nested(declared, flat, nested):
    before = dict(flat)
    assert node_of(declared).NEST_INPUTS(flat) == nested
    assert flat == before


def test_nodes_without_groups_get_their_arguments_unchanged():
    calls = []

    class Plain(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            calls.append(1)
            return io.Schema(node_id="Plain", inputs=[io.Int.Input("a.b")])

        @classmethod
        def execute(cls, **kwargs):
            return io.NodeOutput()

    assert Plain.NEST_INPUTS({"a.b": 1}) == {"a.b": 1} and Plain.NEST_INPUTS({"c": 2}) == {"c": 2}
    assert len(calls) == 1
