"""Finds node packs, imports each in isolation, and reports what loaded and how long it took."""

import asyncio
import importlib.util
import inspect
import logging
import os
import sys
import time
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from app.packs.program_state import ProgramState
from app.packs.registry import PackContentError, PackRegistry
from comfy_execution.executor.isolation import Isolation, is_ctrl_c, is_own_end, log_failure
from comfy_execution.executor.results import printable, type_name

log = logging.getLogger(__name__)

PRESTARTUP_FILE = "prestartup_script.py"


@dataclass(frozen=True, slots=True)
class PackReport:
    """One row of the import time table; *error* is None when everything in the pack loaded."""

    module_path: str
    duration_s: float
    loaded: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PackPolicy:
    """Which packs may load: all, or with *disable_all* only those named in *whitelist* (file or folder names)."""

    disable_all: bool = False
    whitelist: Collection[str] = ()

    def allows(self, name: str) -> bool:
        """Whether the pack in file or folder *name* may be imported."""
        return not self.disable_all or name in self.whitelist

    def allows_none(self) -> bool:
        """Whether there is nothing to look for at all."""
        return self.disable_all and not self.whitelist


def pack_name(module_path: str) -> str:
    """The name a pack is known by: its folder's name, or its file's name without the extension."""
    base = os.path.basename(os.path.normpath(module_path))
    return os.path.splitext(base)[0] if os.path.isfile(module_path) else base


def sys_module_key(module_path: str) -> str:
    """The key in ``sys.modules``: a file's path without ``.py``; a folder's path with each dot replaced, so that its own relative
    imports resolve."""
    return os.path.splitext(module_path)[0] if os.path.isfile(module_path) else module_path.replace(".", "_x_")


def find_packs(folders: Iterable[str], policy: PackPolicy) -> Iterator[str]:
    """Yield the path of each pack below *folders* that *policy* allows, in the order the folders list them."""
    for folder in folders:
        try:
            names = os.listdir(os.path.realpath(folder))
        except OSError as error:
            log.warning("The custom node folder %s cannot be listed: %s", folder, error)
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name == "__pycache__" or name.endswith(".disabled"):
                continue
            if os.path.isfile(path) and not name.endswith(".py"):
                continue
            if policy.allows(name):
                yield path
            else:
                log.info("Skipping %s: --disable-all-custom-nodes is given and the pack is not whitelisted", name)


def _run_script(path: str) -> None:
    spec = importlib.util.spec_from_file_location(os.path.splitext(path)[0], path)
    if spec is None or spec.loader is None:
        raise PackContentError(f"{path} is not a Python module")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def run_prestartup_scripts(folders: Iterable[str], policy: PackPolicy) -> list[PackReport]:
    """Execute each pack's ``prestartup_script.py`` before anything else of the packs is imported; one row per script."""
    if policy.allows_none():
        return []
    reports = []
    for path in find_packs(folders, policy):
        script = os.path.join(path, PRESTARTUP_FILE)
        if not os.path.isfile(script):
            continue
        started = time.perf_counter()
        error = None
        try:
            _run_script(script)
        except BaseException as failure:
            if is_ctrl_c(failure):
                raise
            log_failure(log, f"The prestartup script {script} failed; the pack itself is still tried", failure)
            error = _one_line(failure)
        reports.append(PackReport(path, time.perf_counter() - started, error is None, error))
    log_table("Prestartup times for custom nodes", reports, "PRESTARTUP FAILED")
    return reports


def log_table(title: str, reports: Iterable[PackReport], failure_word: str = "IMPORT FAILED") -> None:
    """Log one line per pack, fastest first, with what went wrong where something did."""
    rows = sorted(reports, key=lambda report: (report.duration_s, report.module_path))
    if not rows:
        return
    log.info("%s:", title)
    for row in rows:
        note = f" ({failure_word})" if not row.loaded else " (incomplete)" if row.error else ""
        reason = f": {row.error}" if row.error else ""
        log.info("%6.1f seconds%s: %s%s", row.duration_s, note, row.module_path, reason)


class PackLoader:
    """Imports packs one at a time into a registry and keeps a report of each. Used from one thread, before the server answers."""

    def __init__(self, registry: PackRegistry) -> None:
        self.registry = registry
        # Gives the objects of the server that packs change or register with; set by whoever builds it.
        self.server_objects: Callable[[], Iterable[object]] = tuple
        self.reports: list[PackReport] = []

    async def load(self, module_path: str, protected: Collection[str] = (), module_parent: str = "custom_nodes") -> bool:
        """Import the pack at *module_path* and register its nodes; whether it loaded.

        Whatever the pack raises is logged with its traceback, and all that it had registered, and changed of the program, is taken
        back. Node names in *protected* keep their class. Ctrl-C passes.
        """
        started = time.perf_counter()
        before = self.registry.snapshot()
        key = sys_module_key(module_path)
        known = set(sys.modules)
        loaded, error = True, None
        with ProgramState(self.server_objects()) as state:
            try:
                problems = await self._load(module_path, key, protected, f"{module_parent}.{pack_name(module_path)}")
                for problem in problems:
                    log.warning("%s: %s. The pack's other nodes are loaded", module_path, problem)
                error = "; ".join(problems) or None
            except BaseException as failure:
                if is_own_end(failure, asyncio.current_task()):
                    raise
                log_failure(log, f"Cannot import the node pack {module_path}; the other packs are not affected", failure)
                loaded, error = False, _one_line(failure)
                self.registry.restore(before)
                with Isolation(f"Undoing what the node pack {module_path} changed", log):
                    state.restore()
                forget_module(key)
                forget_modules_in(module_path, known)
        self.reports.append(PackReport(module_path, time.perf_counter() - started, loaded, error))
        return loaded

    async def _load(self, module_path: str, key: str, protected: Collection[str], python_module: str) -> list[str]:
        is_file = os.path.isfile(module_path)
        module_dir = os.path.dirname(module_path) if is_file else module_path
        module = import_pack(key, module_path if is_file else os.path.join(module_path, "__init__.py"))
        # Upstream keys the folder of a single-file pack by the path that is also its module name.
        self.registry.module_dirs[key if is_file else pack_name(module_path)] = os.path.abspath(module_dir)
        self._register_web(module, module_path, module_dir, key if is_file else pack_name(module_path))
        return await self.register_module(module, python_module, protected)

    async def register_module(self, module: ModuleType, python_module: str, protected: Collection[str] = ()) -> list[str]:
        """Register what an imported module offers, by mappings or by ``comfy_entrypoint``; returns what had to be left out.

        Raises ``PackContentError`` when it offers neither, and whatever its entry point raises.
        """
        mapping = getattr(module, "NODE_CLASS_MAPPINGS", None)
        if mapping is not None:
            titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None)
            return self.registry.register_mapping(mapping, titles, python_module, protected)
        if not hasattr(module, "comfy_entrypoint"):
            raise PackContentError("the module defines neither NODE_CLASS_MAPPINGS nor comfy_entrypoint; one of them is needed")
        return self.registry.register_schemas(await extension_nodes(module.comfy_entrypoint), python_module, protected)

    def _register_web(self, module: ModuleType, module_path: str, module_dir: str, name: str) -> None:
        for key, web_dir in project_web_dir(module_path).items():
            self.registry.web_dirs[key] = web_dir
        declared = getattr(module, "WEB_DIRECTORY", None)
        if declared is None:
            return
        web_dir = os.path.abspath(os.path.join(module_dir, declared))
        if os.path.isdir(web_dir):
            self.registry.web_dirs[name] = web_dir
        else:
            log.warning("%s: WEB_DIRECTORY %r is not a folder; the pack's scripts are not served", module_path, declared)


def import_pack(key: str, source_path: str) -> ModuleType:
    """Execute the file *source_path* as module *key*. Raises what the file raises, ``FileNotFoundError`` when it is not there."""
    spec = importlib.util.spec_from_file_location(key, source_path)
    if spec is None or spec.loader is None:
        raise PackContentError(f"{source_path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    spec.loader.exec_module(module)
    return module


def forget_module(key: str) -> None:
    """Drop a failed pack's module and submodules, so that nothing finds them half initialised."""
    for name in [name for name in sys.modules if name == key or name.startswith(key + ".")]:
        del sys.modules[name]


def forget_modules_in(folder: str, known: Collection[str]) -> None:
    """Drop the modules below *folder* that are not among the *known* names: what a failed pack imported by a path of its own."""
    inside = os.path.join(os.path.realpath(folder), "")
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name not in known and isinstance(path, str) and os.path.realpath(path).startswith(inside):
            del sys.modules[name]


async def extension_nodes(entrypoint: object) -> list[type]:
    """Call a pack's ``comfy_entrypoint``, sync or async, load the extension and return its node classes.

    Raises ``PackContentError`` when something else than an extension or a list comes back.
    """
    if not callable(entrypoint):
        raise PackContentError(f"comfy_entrypoint must be a function, not {type(entrypoint).__name__}")
    extension = entrypoint()
    if inspect.isawaitable(extension):
        extension = await extension
    if not hasattr(extension, "on_load") or not hasattr(extension, "get_node_list"):
        raise PackContentError(f"comfy_entrypoint() must return a ComfyExtension, not {type(extension).__name__}")
    await extension.on_load()
    node_list = await extension.get_node_list()
    if not isinstance(node_list, list | tuple):
        raise PackContentError(f"get_node_list() must return a list of node classes, not {type(node_list).__name__}")
    return list(node_list)


def project_web_dir(module_path: str) -> dict[str, str]:
    """The web folder that a pack's ``pyproject.toml`` names under ``[tool.comfy] web``, keyed by the project's name; or nothing."""
    project_file = os.path.join(module_path, "pyproject.toml")
    if not os.path.isfile(project_file):
        return {}
    try:
        with open(project_file, "rb") as stream:
            project = tomllib.load(stream)
        web = project.get("tool", {}).get("comfy", {}).get("web")
        name = project.get("project", {}).get("name", "")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        log.warning("%s cannot be read, so its web folder is not served: %s", project_file, error)
        return {}
    if not isinstance(web, str) or not web or not isinstance(name, str) or not name:
        return {}
    web_dir = os.path.join(module_path, web)
    return {name: web_dir} if os.path.isdir(web_dir) else {}


def _one_line(error: BaseException) -> str:
    text, kind = printable(error).strip().splitlines(), type_name(type(error))
    return f"{kind}: {text[0]}" if text else kind
