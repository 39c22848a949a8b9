"""The module ``nodes``: its tables, its loading entry points and the functions that packs may not replace."""

import asyncio
import logging
import sys
import types

import pytest

import folder_paths
import hook_breaker_ac10a0
import nodes
from comfy.cli_args import args
from comfy.interruption import InterruptProcessingException, interrupt_flag
from comfy_api.internal import get_all_versions
from comfy_extras.core_modules import CORE_MODULES

GOOD = """
class Good:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}
NODE_CLASS_MAPPINGS = {"PackTestGood": Good, "LoadImage": Good}
WEB_DIRECTORY = "web"
"""


@pytest.fixture
def packs(tmp_path, monkeypatch):
    """An empty custom_nodes folder that is the only one; the tables are put back afterwards."""
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(tmp_path)] if name == "custom_nodes" else [])
    monkeypatch.setattr(args, "disable_all_custom_nodes", False)
    monkeypatch.setattr(args, "whitelist_custom_nodes", [])
    before, modules = nodes.pack_registry.snapshot(), set(sys.modules)
    yield tmp_path
    nodes.pack_registry.restore(before)
    for name in set(sys.modules) - modules:
        if str(tmp_path) in name:
            del sys.modules[name]


def write(folder, name, source):
    (folder / name / "web").mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)


def test_core_classes_are_attributes_and_say_so():
    assert CORE_MODULES and nodes.NODE_CLASS_MAPPINGS["LoadImage"] is nodes.LoadImage
    assert nodes.LoadImage.RELATIVE_PYTHON_MODULE == "nodes" and nodes.MAX_RESOLUTION == 16384


def test_module_name_of_files_and_folders(tmp_path):
    (tmp_path / "single.py").write_text("")
    assert nodes.get_module_name(str(tmp_path / "single.py")) == "single"
    assert nodes.get_module_name(str(tmp_path / "a.pack") + "/") == "a.pack"


def test_external_packs_load_around_a_broken_one(packs, caplog):
    builtin = nodes.NODE_CLASS_MAPPINGS["LoadImage"]
    write(packs, "good", GOOD)
    write(packs, "bad", "raise SystemExit('stop the server')")
    with caplog.at_level(logging.INFO):
        asyncio.run(nodes.init_external_custom_nodes())
    assert nodes.NODE_CLASS_MAPPINGS["PackTestGood"].RELATIVE_PYTHON_MODULE == "custom_nodes.good"
    assert nodes.NODE_CLASS_MAPPINGS["LoadImage"] is builtin
    assert nodes.LOADED_MODULE_DIRS["good"] == str(packs / "good") and "bad" not in nodes.LOADED_MODULE_DIRS
    assert nodes.EXTENSION_WEB_DIRS["good"] == str(packs / "good" / "web")
    assert "IMPORT FAILED" in caplog.text and "Import times for custom nodes" in caplog.text


def test_whitelist_decides_when_packs_are_disabled(packs, monkeypatch):
    monkeypatch.setattr(args, "disable_all_custom_nodes", True)
    write(packs, "good", GOOD)
    asyncio.run(nodes.init_external_custom_nodes())
    assert "PackTestGood" not in nodes.NODE_CLASS_MAPPINGS
    monkeypatch.setattr(args, "whitelist_custom_nodes", ["good"])
    asyncio.run(nodes.init_external_custom_nodes())
    assert "PackTestGood" in nodes.NODE_CLASS_MAPPINGS


def test_everything_beyond_the_core_loads(packs):
    write(packs, "good", GOOD)
    assert asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False)) == []
    assert "PackTestGood" not in nodes.NODE_CLASS_MAPPINGS
    assert "latest" in [entry.version for entry in get_all_versions()]
    modules = {node.RELATIVE_PYTHON_MODULE for node in nodes.NODE_CLASS_MAPPINGS.values()}
    assert all(isinstance(module, str) for module in modules)


def test_builtin_file_that_fails_is_named_and_the_rest_loads(packs, monkeypatch, caplog):
    broken = types.ModuleType("comfy_extras.nodes_broken")
    monkeypatch.setitem(sys.modules, "comfy_extras.nodes_broken", broken)
    monkeypatch.setattr(nodes.os, "listdir", lambda folder: ["nodes_broken.py", "notes.txt"])
    assert asyncio.run(nodes.init_builtin_extra_nodes()) == ["nodes_broken.py"]
    assert "neither NODE_CLASS_MAPPINGS nor comfy_entrypoint" in caplog.text


def test_interrupt_is_raised_once_at_a_cancellation_point():
    nodes.interrupt_processing()
    with pytest.raises(InterruptProcessingException):
        nodes.before_node_execution()
    nodes.before_node_execution()
    nodes.interrupt_processing()
    nodes.interrupt_processing(False)
    assert not interrupt_flag.is_set()


def test_packs_cannot_keep_a_guarded_function_replaced(packs, monkeypatch):
    management = types.SimpleNamespace(cast_to="original", other="free")
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    monkeypatch.setattr(hook_breaker_ac10a0, "SAVED_FUNCTIONS", [])
    source = "import sys\nm = sys.modules['comfy.model_management']\nm.cast_to = m.other = 'replaced'\nNODE_CLASS_MAPPINGS = {}"
    write(packs, "hooker", source)
    write(packs, "second", "NODE_CLASS_MAPPINGS = {}")
    asyncio.run(nodes.init_external_custom_nodes())
    assert (management.cast_to, management.other) == ("original", "replaced")


def test_guarding_does_not_import_the_model_layer(monkeypatch):
    monkeypatch.delitem(sys.modules, "comfy.model_management", raising=False)
    monkeypatch.setattr(hook_breaker_ac10a0, "SAVED_FUNCTIONS", [])
    hook_breaker_ac10a0.save_functions()
    hook_breaker_ac10a0.restore_functions()
    assert "comfy.model_management" not in sys.modules
