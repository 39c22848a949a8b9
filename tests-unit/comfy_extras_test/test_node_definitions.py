"""What ``/object_info`` says of nodes: ComfyUI 0.33's ids, categories, names, inputs with their bounds, and outputs.

``node_definitions.json`` holds it as ComfyUI prints it, without the texts that explain inputs; where a newer
ComfyUI changed a node, as that one does.
"""

import asyncio
import importlib
import inspect
import json
import pathlib

import pytest

from app.packs.node_info import node_info
from comfy_execution.nodes_graph.schema_class import is_schema_class
from comfy_extras import nodes_model_merging_model_specific as of_one_family

DEFINITIONS = json.loads(pathlib.Path(__file__).with_name("node_definitions.json").read_text(encoding="utf-8"))
FLAGS = ("deprecated", "experimental")


def nodes_of(module):
    """The node classes of a module by id."""
    found = importlib.import_module(module if module != "nodes" else "comfy_extras.core_conditioning")
    if hasattr(found, "NODE_CLASS_MAPPINGS"):
        return found.NODE_CLASS_MAPPINGS
    extension = found.comfy_entrypoint()
    extension = asyncio.run(extension) if asyncio.iscoroutine(extension) else extension
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def test_entry_points_are_awaited_as_comfyuis():
    folder = pathlib.Path(importlib.import_module("comfy_extras").__path__[0])
    modules = [importlib.import_module(f"comfy_extras.{path.stem}") for path in sorted(folder.glob("nodes_*.py"))]
    found = {module.__name__: module.comfy_entrypoint for module in modules if hasattr(module, "comfy_entrypoint")}
    assert len(found) > 20
    assert [name for name, entry in found.items() if not inspect.iscoroutinefunction(entry)] == []


def without_tooltips(value):
    if isinstance(value, dict):
        return {key: without_tooltips(item) for key, item in value.items() if key != "tooltip"}
    return [without_tooltips(item) for item in value] if isinstance(value, list | tuple) else value


def titles(module):
    return getattr(
        importlib.import_module(module if module != "nodes" else "comfy_extras.core_conditioning"), "NODE_DISPLAY_NAME_MAPPINGS", {}
    )


@pytest.mark.parametrize("name", DEFINITIONS)
def test_nodes_are_defined_as_in_comfyui(name):
    expected = dict(DEFINITIONS[name])
    module = expected.pop("module")
    node = nodes_of(module)[name]
    info = node_info(name, node)
    if not is_schema_class(node):
        info["display_name"] = titles(module).get(name, name)
    found = {key: info.get(key) for key in ("category", "display_name", "output", "output_name", "output_node")}
    found |= {key: info[key] for key in FLAGS if info.get(key)}
    found |= {"input": without_tooltips(info["input"])} | ({"search_aliases": info["search_aliases"]} if info.get("search_aliases") else {})
    assert json.loads(json.dumps(found)) == expected
    assert info["input_order"]["required"] == list(expected["input"]["required"])


@pytest.mark.parametrize(
    ("node", "count", "some"),
    [
        ("SD1", 30, ("time_embed.", "label_emb.", "input_blocks.11.", "middle_block.2.", "output_blocks.0.", "out.")),
        ("SD2", 30, ("input_blocks.11.",)),
        ("SDXL", 24, ("input_blocks.8", "middle_block.2", "output_blocks.8", "out.")),
        ("SD3_2B", 30, ("pos_embed.", "y_embedder.", "joint_blocks.23.", "final_layer.")),
        ("SD35_Large", 44, ("joint_blocks.37.",)),
        ("Auraflow", 43, ("positional_encoding", "double_layers.3.", "single_layers.31.", "modF.")),
        ("Flux1", 63, ("guidance_in", "double_blocks.18.", "single_blocks.37.", "final_layer.")),
        ("MochiPreview", 53, ("t5_yproj.", "blocks.47.")),
        ("LTXV", 33, ("scale_shift_table", "transformer_blocks.27.")),
        ("Cosmos7B", 34, ("affline_norm.", "blocks.block27.")),
        ("Cosmos14B", 42, ("extra_pos_embedder.", "blocks.block35.")),
        ("WAN2_1", 46, ("img_emb.", "blocks.39.", "head.")),
        ("CosmosPredict2_2B", 33, ("t_embedding_norm.", "blocks.27.")),
        ("CosmosPredict2_14B", 41, ("blocks.35.",)),
        ("QwenImage", 66, ("txt_norm.", "transformer_blocks.59.", "proj_out.")),
        ("Krea2", 38, ("txtfusion.layerwise_blocks.1.", "txtfusion.projector.", "blocks.27.", "last.")),
    ],
)
def test_families_have_a_ratio_for_each_of_their_parts(node, count, some):
    info = node_info(f"ModelMerge{node}", of_one_family.NODE_CLASS_MAPPINGS[f"ModelMerge{node}"])
    inputs = info["input"]["required"]
    assert list(inputs)[:2] == ["model1", "model2"] and len(inputs) == count + 2
    assert set(some) <= set(inputs) and info["category"] == "model/merging/model specific"
    assert all(inputs[name] == ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}) for name in some)
