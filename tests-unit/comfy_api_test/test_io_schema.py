"""Schemas: what is filled in, what is refused, and the /object_info entry."""

import json

import pytest

from comfy_api.latest import io


class Sample(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Sample",
            inputs=[io.Image.Input("image"), io.Int.Input("count", default=1, optional=True)],
            outputs=[io.Image.Output(), io.Mask.Output("alpha", tooltip="holes"), io.Int.Output(display_name="n", is_output_list=True)],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image, count=1):
        return io.NodeOutput(image, None, [count])


def finalised(**fields):
    schema = io.Schema(node_id="S", **fields)
    schema.finalize()
    return schema


def test_object_info_entry_is_complete():
    assert Sample.GET_NODE_INFO_V1() == {
        "input": {
            "required": {"image": ("IMAGE", {})},
            "optional": {"count": ("INT", {"default": 1})},
            "hidden": {"unique_id": ("UNIQUE_ID",), "prompt": ("PROMPT",), "extra_pnginfo": ("EXTRA_PNGINFO",)},
        },
        "input_order": {"required": ["image"], "optional": ["count"], "hidden": ["unique_id", "prompt", "extra_pnginfo"]},
        "is_input_list": False,
        "output": ["IMAGE", "MASK", "INT"],
        "output_is_list": [False, False, True],
        "output_name": ["IMAGE", "alpha", "n"],
        "output_tooltips": [None, "holes", None],
        "output_matchtypes": None,
        "name": "Sample",
        "display_name": "Sample",
        "description": "",
        "python_module": "nodes",
        "category": "sd",
        "output_node": True,
        "deprecated": False,
        "experimental": False,
        "dev_only": False,
        "api_node": False,
        "price_badge": None,
        "search_aliases": None,
        "essentials_category": None,
        "has_intermediate_output": False,
    }
    assert json.loads(json.dumps(Sample.GET_NODE_INFO_V1()))["input"]["hidden"]["prompt"] == ["PROMPT"]


def test_outputs_without_id_get_one():
    assert [output.id for output in Sample.GET_SCHEMA().outputs] == ["_0_IMAGE_", "alpha", "_2_INT_"]


def test_finalize_adds_hidden_values_once_and_turns_none_into_lists():
    schema = finalised(is_output_node=True, is_api_node=True, hidden=[io.Hidden.prompt], inputs=None, outputs=None)
    schema.finalize()
    assert schema.inputs == [] and schema.outputs == []
    assert [value.name for value in schema.hidden] == [
        "prompt", "auth_token_comfy_org", "api_key_comfy_org", "comfy_usage_source", "extra_pnginfo",
    ]  # fmt: skip


def test_finalize_does_not_write_into_the_authors_hidden_list():
    asked = [io.Hidden.unique_id]
    finalised(hidden=asked, is_output_node=True)
    assert asked == [io.Hidden.unique_id]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": [io.Int.Input("a"), io.Image.Input("a")]}, "node 'S': input ids must be unique, but 'a'"),
        ({"outputs": [io.Int.Output("o"), io.Int.Output("o")]}, "node 'S': output ids must be unique, but 'o'"),
        ({"inputs": [io.MultiType.Input("a", [int])]}, "int is not a type"),
        ({"price_badge": io.PriceBadge(" ")}, "PriceBadge.expr must be"),
        ({"price_badge": io.PriceBadge("1", engine="python")}, "only evaluates 'jsonata'"),
        ({"price_badge": io.PriceBadge("1", io.PriceBadgeDepends(widgets="a"))}, "widgets must be a list of strings"),
    ],
)
def test_contradictions_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        finalised(**fields).validate()


def test_passing_a_type_instead_of_a_socket_says_what_to_write():
    with pytest.raises(TypeError, match=r"node 'S': inputs holds Image; it takes objects such as io.Image.Input"):
        finalised(inputs=[io.Image])


def test_price_badge_prints_widgets_with_their_types():
    mode = io.DynamicCombo.Input("mode", options=[io.DynamicCombo.Option("k", [io.Int.Input("n")])])
    schema = finalised(
        inputs=[io.Float.Input("f"), mode], price_badge=io.PriceBadge("x", io.PriceBadgeDepends(widgets=["f", "mode.n"], inputs=["f"]))
    )
    assert schema.get_v1_info(Sample).price_badge == {
        "engine": "jsonata",
        "expr": "x",
        "depends_on": {"widgets": [{"name": "f", "type": "FLOAT"}, {"name": "mode.n", "type": "INT"}], "inputs": ["f"], "input_groups": []},
    }
    with pytest.raises(ValueError, match="depends on nope, but the node has f, mode"):
        io.PriceBadgeDepends(widgets=["nope"]).as_dict(schema.inputs)


def test_node_replace_prints_mappings():
    replace = io.NodeReplace("New", "Old", ["w"], [{"new_id": "a", "old_id": "b"}], [])
    assert replace.as_dict() == {
        "new_node_id": "New", "old_node_id": "Old", "old_widget_ids": ["w"],
        "input_mapping": [{"new_id": "a", "old_id": "b"}], "output_mapping": None,
    }  # fmt: skip
