"""/object_info: V1 and V3 nodes, odd values, failing nodes."""

import asyncio
import enum
import json
import os
import threading
import time

import pytest

import nodes
from app.files.off_loop import off_loop
from app.packs.node_info import registered_node_info
from app.routes.object_info import DESCRIBING_THREADS
from comfy_api.internal import _ComfyNodeInternal


class Plain:
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"b": ("INT", {"default": 1}), "a": (["x", "y"],)}, "hidden": {"prompt": "PROMPT"}}


class Everything(Plain):
    RETURN_NAMES = ("out", "mask")
    OUTPUT_IS_LIST = (True, False)
    OUTPUT_TOOLTIPS = ("one", "two")
    INPUT_IS_LIST = True
    CATEGORY = "test/all"
    DESCRIPTION = "does it"
    OUTPUT_NODE = True
    HAS_INTERMEDIATE_OUTPUT = True
    SEARCH_ALIASES = ["other"]
    DEPRECATED = EXPERIMENTAL = DEV_ONLY = True
    API_NODE = False
    ESSENTIALS_CATEGORY = "basics"
    RELATIVE_PYTHON_MODULE = "custom_nodes.pack"


def node_with(inputs, **attributes):
    return type("Made", (Plain,), {"INPUT_TYPES": classmethod(lambda cls: {"required": inputs}), **attributes})


def refuse_constants(name):
    raise AssertionError(f"{name} in the answer")


async def strict(answer):
    assert answer.status == 200 and answer.content_type == "application/json"
    return json.loads(await answer.text(), parse_constant=refuse_constants)


async def describe(client, node_class):
    nodes.NODE_CLASS_MAPPINGS["N"] = node_class
    return (await strict(await client.get("/object_info/N")))["N"]


async def test_a_plain_node_has_every_field_that_the_page_needs(client, node_classes):
    assert await describe(client, Plain) == {
        "input": {"required": {"b": ["INT", {"default": 1}], "a": [["x", "y"]]}, "hidden": {"prompt": "PROMPT"}},
        "input_order": {"required": ["b", "a"], "hidden": ["prompt"]},
        "is_input_list": False,
        "output": ["IMAGE", "MASK"],
        "output_is_list": [False, False],
        "output_name": ["IMAGE", "MASK"],
        "name": "N",
        "display_name": "N",
        "description": "",
        "python_module": "nodes",
        "category": "sd",
        "output_node": False,
        "has_intermediate_output": False,
        "search_aliases": [],
    }


async def test_every_attribute_is_printed(client, node_classes, monkeypatch):
    monkeypatch.setitem(nodes.NODE_DISPLAY_NAME_MAPPINGS, "N", "Nice name")
    info = await describe(client, Everything)
    assert {key: info[key] for key in info.keys() - {"input", "input_order"}} == {
        "is_input_list": True,
        "output": ["IMAGE", "MASK"],
        "output_is_list": [True, False],
        "output_name": ["out", "mask"],
        "name": "N",
        "display_name": "Nice name",
        "description": "does it",
        "python_module": "custom_nodes.pack",
        "category": "test/all",
        "output_node": True,
        "has_intermediate_output": True,
        "search_aliases": ["other"],
        "output_tooltips": ["one", "two"],
        "deprecated": True,
        "experimental": True,
        "dev_only": True,
        "api_node": False,
        "essentials_category": "basics",
    }


@pytest.mark.parametrize("module", [None, 5, object()])
async def test_python_module_is_always_text(client, node_classes, module):
    assert (await describe(client, node_with({}, RELATIVE_PYTHON_MODULE=module)))["python_module"] == "nodes"


async def test_a_v3_node_describes_itself(client, node_classes):
    class Modern(_ComfyNodeInternal):
        RELATIVE_PYTHON_MODULE = "comfy_extras.x"

        @classmethod
        def GET_NODE_INFO_V1(cls):
            return {"name": "Modern", "input": {}, "python_module": None}

    assert await describe(client, Modern) == {"name": "Modern", "input": {}, "python_module": "comfy_extras.x"}


async def test_endless_bounds_and_odd_values_become_strict_json(client, node_classes):
    class Color(enum.StrEnum):
        RED = "red"

    class AnyType(str):
        def __ne__(self, other):
            return False

    info = await describe(
        client,
        node_with(
            {
                "f": ("FLOAT", {"max": float("inf"), "min": float("-inf"), "default": float("nan")}),
                "c": (list(Color), {}),
                "any": (AnyType("*"),),
                "folders": ({"b", "a"},),
                "keys": ({"k": 1}.keys(),),
            }
        ),
    )
    assert info["input"]["required"] == {
        "f": ["FLOAT", {"max": 1.7976931348623157e308, "min": -1.7976931348623157e308, "default": None}],
        "c": [["red"], {}],
        "any": ["*"],
        "folders": [["a", "b"]],
        "keys": [["k"]],
    }


async def test_a_bare_string_of_types_is_a_sequence(client, node_classes):
    info = await describe(client, node_with({}, RETURN_TYPES="AB"))
    assert (info["output"], info["output_is_list"]) == (["A", "B"], [False, False])


def failing(*_):
    raise ValueError("author's mistake")


@pytest.mark.parametrize(
    "broken",
    [
        type("Raises", (Plain,), {"INPUT_TYPES": classmethod(failing)}),
        node_with({"x": (object(),)}),
        type("NoTypes", (), {}),
        type("Wrong", (Plain,), {"INPUT_TYPES": classmethod(lambda cls: None)}),
        node_with({}, RETURN_TYPES=None),
    ],
)
async def test_a_node_that_cannot_be_described_is_left_out_and_logged(client, node_classes, broken, caplog):
    node_classes.update(Good=Plain, Broken=broken, Last=Plain)
    assert list(await strict(await client.get("/api/object_info"))) == ["Good", "Last"]
    assert "Broken" in caplog.text
    answer = await client.get("/object_info/Broken")
    assert answer.status == 500 and "mistake" not in await answer.text()


async def test_an_unknown_node_is_an_empty_object(client, node_classes):
    assert await strict(await client.get("/object_info/Nothing")) == {}


async def test_each_request_asks_the_nodes_again(client, node_classes):
    files = ["a"]
    node_classes["N"] = node_with({"file": (files,)})
    await client.get("/object_info")
    files.append("b")
    assert (await strict(await client.get("/object_info")))["N"]["input"]["required"]["file"] == [["a", "b"]]


async def test_the_loop_goes_on_while_nodes_are_described(client, node_classes):
    """A node whose description waits for another request would never be answered from the loop itself."""
    reached, go_on = threading.Event(), threading.Event()

    def wait(cls):
        reached.set()
        assert go_on.wait(10)
        return {}

    node_classes["Slow"] = type("Slow", (Plain,), {"INPUT_TYPES": classmethod(wait)})
    slow = asyncio.create_task(client.get("/object_info"))
    while not reached.is_set():
        await asyncio.sleep(0)
    assert (await client.get("/prompt")).status == 200
    go_on.set()
    assert list(await strict(await slow)) == ["Slow"]


async def test_a_thousand_nodes_are_described_in_moments(client, node_classes):
    node_classes.update({f"Node{number}": Everything for number in range(1000)})
    started_s = time.perf_counter()
    assert len(await strict(await client.get("/object_info"))) == 1000
    assert time.perf_counter() - started_s < 3


async def test_odd_entries_in_the_input_folder_take_no_node_away(client, node_classes, tmp_path):
    from comfy_extras import core_image_files, core_latent_files

    node_classes.update(core_image_files.NODE_CLASS_MAPPINGS | core_latent_files.NODE_CLASS_MAPPINGS)
    folder = tmp_path / "input"
    for ending in ("png", "latent"):
        (folder / f"itself.{ending}").symlink_to(f"itself.{ending}")
        (folder / f"nowhere.{ending}").symlink_to("gone")
        os.mkfifo(folder / f"pipe.{ending}")
        (folder / f"folder.{ending}").mkdir()
        (folder / f"real.{ending}").touch()
    described = await (await client.get("/object_info")).json()
    assert described["LoadImage"]["input"]["required"]["image"][0] == ["real.png"]
    assert described["LoadImageMask"]["input"]["required"]["image"][0] == ["real.png"]
    assert described["LoadLatent"]["input"]["required"]["latent"][0] == ["real.latent"]
    assert await (await client.get("/internal/files/input")).json() == ["real.latent [input]", "real.png [input]"]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
async def test_a_node_cannot_end_the_process_when_it_is_described(client, node_classes, error):
    def leave(cls):
        raise error

    node_classes.update({"Bad": type("Bad", (Plain,), {"INPUT_TYPES": classmethod(leave)}), "Good": Plain})
    assert list(await strict(await client.get("/object_info"))) == ["Good"]
    assert (await client.get("/object_info/Bad")).status == 500
    assert list(await strict(await client.get("/object_info/Good"))) == ["Good"]


async def test_nodes_that_hang_leave_the_threads_for_files_alone(client, node_classes):
    ended = threading.Event()
    hanging = type("Hang", (Plain,), {"INPUT_TYPES": classmethod(lambda cls: ended.wait(30) and {})})
    node_classes["Hang"] = hanging
    asked = [asyncio.create_task(client.get("/object_info/Hang")) for _ in range(DESCRIBING_THREADS + 70)]
    try:
        await asyncio.sleep(0.1)
        assert await off_loop(lambda: "read", limit_s=10) == "read"
    finally:
        ended.set()
    assert {answer.status for answer in await asyncio.gather(*asked)} == {200}


async def test_inputs_of_any_name_are_described_by_those_they_list(client, node_classes):
    class Flexible(dict):
        def __contains__(self, name):
            return True

        def __getitem__(self, name):
            return ("*",)

    inputs = {"required": {}, "optional": Flexible(a=("INT",))}
    info = await describe(client, type("Free", (Plain,), {"INPUT_TYPES": classmethod(lambda cls: inputs)}))
    assert info["input"]["optional"] == {"a": ["INT"]} and info["input_order"]["optional"] == ["a"]


@pytest.mark.parametrize("error", [OSError("gone"), SystemExit(1)])
def test_a_class_that_cannot_be_described_counts_as_unknown(node_classes, error, caplog):
    def fail(cls):
        raise error

    node_classes.update({"Bad": type("Bad", (Plain,), {"INPUT_TYPES": classmethod(fail)}), "Good": Plain})
    assert registered_node_info("Bad") is registered_node_info("Nobody") is None and "Bad cannot be described" in caplog.text
    assert registered_node_info("Good")["name"] == "Good"
