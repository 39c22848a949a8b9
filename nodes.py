"""The node tables and the pack loading entry points, under the names that node packs and scripts import.

Node classes live in ``comfy_extras/core_*.py``; this module collects them and repeats them as its own attributes.
"""

import importlib
import logging
import os
from collections.abc import Collection
from types import ModuleType
from typing import Any

import folder_paths
import hook_breaker_ac10a0
from app.packs.loader import PackLoader, PackPolicy, find_packs, log_table, pack_name
from app.packs.registry import PackRegistry
from comfy.cli_args import args
from comfy.interruption import interrupt_flag
from comfy_api.internal import ComfyAPIWithVersion, register_versions
from comfy_api.version_list import supported_versions
from comfy_execution.nodes_graph.registered_classes import class_source
from comfy_extras.core_modules import CORE_MODULES

log = logging.getLogger(__name__)

MAX_RESOLUTION = 16384

NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
# Folders of scripts that the web page loads, by pack; and the folders of the packs themselves.
EXTENSION_WEB_DIRS: dict[str, str] = {}
LOADED_MODULE_DIRS: dict[str, str] = {}

pack_registry = PackRegistry(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, EXTENSION_WEB_DIRS, LOADED_MODULE_DIRS)
pack_loader = PackLoader(pack_registry)


@class_source.provide
def _node_classes() -> dict[str, type]:
    return NODE_CLASS_MAPPINGS


def before_node_execution() -> None:
    """A cancellation point: raises ``InterruptProcessingException`` when the user asked to stop."""
    interrupt_flag.raise_if_set()


def interrupt_processing(value: bool = True) -> None:
    """Ask the running prompt to stop at its next cancellation point, or withdraw that request. Any thread."""
    interrupt_flag.set(value)


def get_module_name(module_path: str) -> str:
    """The name a pack at *module_path* is known by (see ``app.packs.loader.pack_name``)."""
    return pack_name(module_path)


async def load_custom_node(module_path: str, ignore: Collection[str] = frozenset(), module_parent: str = "custom_nodes") -> bool:
    """Load one pack, leaving the node names in *ignore* as they are; whether it loaded. A failure is logged, never raised."""
    return await pack_loader.load(module_path, ignore, module_parent)


async def init_external_custom_nodes() -> None:
    """Load the packs of every ``custom_nodes`` folder and log what each cost. Built-in node names keep their class."""
    builtin_names = frozenset(NODE_CLASS_MAPPINGS)
    policy = PackPolicy(args.disable_all_custom_nodes, frozenset(args.whitelist_custom_nodes))
    first = len(pack_loader.reports)
    for module_path in list(find_packs(folder_paths.get_folder_paths("custom_nodes"), policy)):
        hook_breaker_ac10a0.save_functions()
        await load_custom_node(module_path, builtin_names, module_parent="custom_nodes")
    hook_breaker_ac10a0.restore_functions()
    log_table("Import times for custom nodes", pack_loader.reports[first:])


async def init_builtin_extra_nodes() -> list[str]:
    """Import every ``comfy_extras/nodes_*.py`` under its own module name; returns the files that failed."""
    folder = os.path.join(os.path.dirname(os.path.realpath(__file__)), "comfy_extras")
    failed = []
    for file_name in sorted(name for name in os.listdir(folder) if name.startswith("nodes_") and name.endswith(".py")):
        module_name = f"comfy_extras.{file_name[:-3]}"
        try:
            await _register_builtin(importlib.import_module(module_name), module_name)
        except Exception:
            log.exception("The built-in node module %s could not be loaded; its nodes are missing", module_name)
            failed.append(file_name)
    return failed


async def init_public_apis() -> None:
    """Register the versions of the public API that packs may ask for."""
    register_versions([ComfyAPIWithVersion(version=api.VERSION, api_class=api) for api in supported_versions])


async def init_extra_nodes(init_custom_nodes: bool = True, init_api_nodes: bool = True) -> list[str]:
    """Load everything beyond the core nodes; returns the built-in files that failed.

    *init_api_nodes* is accepted for compatibility: this server has no nodes that call paid services.
    """
    await init_public_apis()
    failed = await init_builtin_extra_nodes()
    if init_custom_nodes:
        await init_external_custom_nodes()
    else:
        log.info("Custom node packs are not loaded")
    if failed:
        log.warning("Built-in node files that did not load: %s. Run: pip install -r requirements.txt", ", ".join(failed))
    return failed


async def _register_builtin(module: ModuleType, python_module: str) -> None:
    for problem in await pack_loader.register_module(module, python_module):
        raise TypeError(f"{python_module}: {problem}")


def _adopt_core_module(name: str) -> dict[str, Any]:
    """Register the classes of one core module and return the public names it adds here."""
    module = importlib.import_module(name)
    titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", {})
    for problem in pack_registry.register_mapping(module.NODE_CLASS_MAPPINGS, titles, "nodes"):
        raise TypeError(f"{name}: {problem}")
    exported = {node_class.__name__: node_class for node_class in module.NODE_CLASS_MAPPINGS.values()}
    return exported | {function: getattr(module, function) for function in getattr(module, "NODES_EXPORTS", ())}


for _core_module in CORE_MODULES:
    globals().update(_adopt_core_module(_core_module))
