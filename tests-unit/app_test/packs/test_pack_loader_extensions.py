"""Loading packs that offer a V3 extension."""

import asyncio
import sys

import pytest

from app.packs.loader import PackLoader
from app.packs.registry import PackRegistry

HEADER = """
from comfy_api.latest import ComfyExtension, io

def node(name, title=None, base=io.ComfyNode):
    class Node(base):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id=name, display_name=title, inputs=[io.Int.Input("x")], outputs=[io.Int.Output()])
        @classmethod
        def execute(cls, x):
            return io.NodeOutput(x * 2)
    return Node

class Extension(ComfyExtension):
    loaded = []
    nodes = [node("Double", "Twice"), node("Plain")]
    async def on_load(self):
        self.loaded.append(1)
    async def get_node_list(self):
        return self.nodes
"""


@pytest.fixture
def load(tmp_path):
    before = set(sys.modules)

    def load_source(source, **options):
        folder = tmp_path / "v3pack"
        folder.mkdir()
        (folder / "__init__.py").write_text(HEADER + source)
        loader = PackLoader(PackRegistry({}, {}, {}, {}))
        loaded = asyncio.run(loader.load(str(folder), **options))
        return loaded, loader.reports[0], loader.registry

    yield load_source
    for name in set(sys.modules) - before:
        if str(tmp_path) in name:
            del sys.modules[name]


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_entrypoint_sync_or_async_registers_its_nodes(load, keyword):
    loaded, report, registry = load(f"{keyword} comfy_entrypoint():\n    return Extension()")
    assert loaded and report.error is None
    assert set(registry.node_classes) == {"Double", "Plain"} and registry.display_names == {"Double": "Twice"}
    node = registry.node_classes["Double"]
    assert node.GET_NODE_INFO_V1()["python_module"] == "custom_nodes.v3pack"
    assert node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(x=4).args == (8,)
    assert sys.modules[node.__module__].Extension.loaded == [1]


def test_an_older_class_with_the_name_of_a_schema_is_one_of_its_nodes(load):
    source = """
import types
class Older:
    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    GET_SCHEMA = lambda: types.SimpleNamespace(node_id="Old", display_name=None)
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}
Extension.nodes = [Older, *Extension.nodes]
def comfy_entrypoint(): return Extension()
"""
    loaded, report, registry = load(source)
    assert loaded and report.error is None and set(registry.node_classes) == {"Old", "Double", "Plain"}
    assert registry.node_classes["Old"].RELATIVE_PYTHON_MODULE == "custom_nodes.v3pack" and "Old" not in registry.display_names


def test_mapping_may_hold_v3_classes_and_hides_the_entrypoint(load):
    loaded, _, registry = load("NODE_CLASS_MAPPINGS = {'Mapped': node('Inner')}\ndef comfy_entrypoint(): raise ValueError")
    assert loaded and set(registry.node_classes) == {"Mapped"}


def test_none_as_mapping_does_not_hide_the_entrypoint(load):
    loaded, _, registry = load("NODE_CLASS_MAPPINGS = None\ndef comfy_entrypoint(): return Extension()")
    assert loaded and "Double" in registry.node_classes


def test_protected_names_stay_and_other_modules_set_their_parent(load):
    source = "def comfy_entrypoint(): return Extension()"
    _, _, registry = load(source, protected={"Double"}, module_parent="comfy_extras")
    assert set(registry.node_classes) == {"Plain"} and registry.display_names == {}
    assert registry.node_classes["Plain"].RELATIVE_PYTHON_MODULE == "comfy_extras.v3pack"


def test_invalid_schema_leaves_out_one_class_and_names_it(load, caplog):
    source = """
class Broken(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        raise LookupError("no schema today")
    @classmethod
    def execute(cls):
        return None
Extension.nodes = [Broken, 7, *Extension.nodes]
def comfy_entrypoint(): return Extension()
"""
    loaded, report, registry = load(source)
    assert loaded and set(registry.node_classes) == {"Double", "Plain"}
    assert "Broken is not valid: no schema today" in report.error and "returned 7" in report.error
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("async def on_load(self): raise OSError('no disk')\nExtension.on_load = on_load", "OSError: no disk"),
        ("async def get(self): return None\nExtension.get_node_list = get", "must return a list of node classes, not NoneType"),
        ("async def get(self): raise SystemExit(2)\nExtension.get_node_list = get", "SystemExit: 2"),
    ],
)
def test_failing_extension_is_reported_and_leaves_nothing(load, change, expected):
    loaded, report, registry = load(change + "\ndef comfy_entrypoint(): return Extension()")
    assert not loaded and expected in report.error and registry.node_classes == {} and registry.module_dirs == {}
