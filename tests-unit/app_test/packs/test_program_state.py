"""A pack that fails to import leaves nothing of itself behind."""

import asyncio
import os
import sys
from types import SimpleNamespace

import pytest
from aiohttp import web

import comfy.latent_formats
import comfy.model_management
import execution
import folder_paths
from app.packs.loader import PackLoader, run_prestartup_scripts
from app.packs.loader import PackPolicy as Policy
from app.packs.program_state import ProgramState, is_program_module
from app.packs.registry import PackRegistry
from comfy_execution.cache_provider import _get_cache_providers
from comfy_execution.prompts.queue import PromptQueue

FAILS = "\nraise ImportError('not today')\n"


@pytest.fixture(autouse=True)
def _keep_sys_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if os.sep in name:
            del sys.modules[name]


@pytest.fixture
def load(tmp_path):
    """``load(source, server's objects, **files)`` loads a pack of that source; whether it loaded."""

    def load(source, objects=(), **files):
        folder = tmp_path / "custom_nodes" / "pack"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(source)
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        loader = PackLoader(PackRegistry({}, {}, {}, {}))
        loader.server_objects = lambda: objects
        return asyncio.run(loader.load(str(folder)))

    return load


CHANGES = {
    "function": (
        "import comfy.model_management as m\nm.soft_empty_cache = lambda *a: 1/0",
        lambda: comfy.model_management.soft_empty_cache,
    ),
    "method": ("import execution\nexecution.PromptExecutor.execute = None", lambda: execution.PromptExecutor.execute),
    "inherited method": (
        "import execution\nexecution.PromptQueue.task_done = lambda *a: 1/0",
        lambda: (execution.PromptQueue.task_done, "task_done" in vars(execution.PromptQueue)),
    ),
    "class": ("import execution\nexecution.PromptQueue = dict", lambda: execution.PromptQueue),
    "deleted": ("import folder_paths\ndel folder_paths.get_full_path", lambda: vars(folder_paths).get("get_full_path")),
    "new name": ("import folder_paths\nfolder_paths.extra = lambda: 1", lambda: hasattr(folder_paths, "extra")),
    "value": ("import folder_paths\nfolder_paths.set_output_directory('/nowhere')", folder_paths.get_output_directory),
    "table": (
        "import folder_paths\nfolder_paths.folder_names_and_paths['mine'] = (['/x'], set())",
        lambda: sorted(folder_paths.folder_names_and_paths),
    ),
    "list in a table": (
        "import folder_paths\nfolder_paths.add_model_folder_path('loras', '/x', is_default=True)",
        lambda: folder_paths.get_folder_paths("loras"),
    ),
    "set in a table": (
        "import folder_paths\nfolder_paths.folder_names_and_paths['loras'][1].add('.x')",
        lambda: sorted(folder_paths.folder_names_and_paths["loras"][1]),
    ),
    "module": (
        "import sys, types\nsys.modules['comfy.latent_formats'] = types.ModuleType('comfy.latent_formats')",
        lambda: sys.modules["comfy.latent_formats"] is comfy.latent_formats,
    ),
    "class attribute": (
        "import comfy.latent_formats as f\nf.SD15.scale_factor = 5\nf.LatentFormat.added = 3",
        lambda: (vars(comfy.latent_formats.SD15).get("scale_factor"), hasattr(comfy.latent_formats.SD15, "added")),
    ),
    "search path": (
        "import sys\nsys.path.insert(0, '/pack')\nsys.meta_path.append(object())",
        lambda: (list(sys.path), list(sys.meta_path)),
    ),
    "provider": (
        "from comfy_api.latest import Caching\n"
        "class P(Caching.CacheProvider):\n    async def on_lookup(self, c): pass\n    async def on_store(self, c, v): pass\n"
        "from comfy_execution.cache_provider import register_cache_provider\nregister_cache_provider(P())",
        _get_cache_providers,
    ),
    "bar": (
        "from comfy.utils import set_progress_bar_global_hook as s\ns(lambda *a: 1/0)",
        lambda: sys.modules["comfy.progress_bar"].hook_state.hook,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_failed_pack_changed_is_put_back(load, change):
    source, look = CHANGES[change]
    before = look()
    assert not load(source + FAILS)
    after = look()
    assert after == before and (not callable(before) or after is before)
    assert load(source + "\nNODE_CLASS_MAPPINGS = {}") and look() != before, "a pack that loads keeps its changes"
    assert not load("from nothing import nothing")
    assert look() != before, "and the failure of another does not take them back"


@pytest.fixture(autouse=True)
def _undone():
    """Changes of packs that load do not reach the next test."""
    with ProgramState() as state:
        yield
        state.restore()


def test_modules_that_the_pack_imports_first_are_put_back_too(load, monkeypatch):
    name = "comfy.deploy_environment"
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert not load(f"import {name} as m\nm.get_deploy_environment = 5\nm.added = 6" + FAILS)
    module = sys.modules[name]
    assert callable(module.get_deploy_environment) and not hasattr(module, "added")
    assert "exec_module" not in vars(module.__loader__)


def test_what_the_pack_added_to_the_server_is_removed(load, monkeypatch):
    class PromptServer:
        def __init__(self):
            self.routes, self.app, self.on_prompt_handlers = web.RouteTableDef(), web.Application(), []
            self.node_replace_manager, self.number = SimpleNamespace(table={}), 0

        def send_sync(self):
            """Replaced."""

    server = PromptServer()
    monkeypatch.setattr(sys, "server_of_this_test", server, raising=False)
    objects = (server, server.routes, server.app, server.app.router, server.node_replace_manager)
    source = """
import sys
from aiohttp import web
server = sys.server_of_this_test
async def answer(request): return web.Response()
server.routes.get("/mine")(answer)
server.app.router.add_get("/mine", answer)
server.app.middlewares.append(answer)
server.app.on_shutdown.append(answer)
server.app[web.AppKey("mine", int)] = 1
server.on_prompt_handlers.append(answer)
server.send_sync = answer
server.extra = 1
server.number = 7
server.node_replace_manager.table["old"] = [1]
"""
    assert not load(source + FAILS, objects)
    assert not list(server.routes) and not list(server.app.router.routes()) and not list(server.app)
    assert not server.app.middlewares and not [one for one in server.app.on_shutdown if one.__name__ == "answer"]
    assert not server.on_prompt_handlers and "send_sync" not in vars(server) and not hasattr(server, "extra")
    assert server.node_replace_manager.table == {} and server.number == 7, "what counts on goes on"
    assert load(source + "\nNODE_CLASS_MAPPINGS = {}", objects) and len(list(server.routes)) == 1


def test_modules_of_the_pack_itself_are_forgotten(load):
    assert not load(
        "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\nimport pack_inner\nfrom . import pack_inner as same" + FAILS,
        pack_inner="x = 1",
    )
    assert not [name for name in sys.modules if "pack_inner" in name] and not any(entry.endswith("pack") for entry in sys.path)


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit", "GeneratorExit", "BaseException", "asyncio.CancelledError"])
def test_a_pack_may_raise_anything(load, error, tmp_path, monkeypatch):
    # Ctrl-C is heard on the main thread by the default handler; here nothing of the kind is installed.
    monkeypatch.setattr("comfy_execution.executor.isolation.threading", SimpleNamespace(current_thread=int, main_thread=str))
    assert not load(f"import asyncio\nraise {error}")
    (tmp_path / "custom_nodes" / "pack" / "prestartup_script.py").write_text(f"import asyncio\nraise {error}")
    (report,) = run_prestartup_scripts([str(tmp_path / "custom_nodes")], Policy())
    assert report.error == error.removeprefix("asyncio.")


def test_ctrl_c_while_a_pack_loads_passes(load):
    with pytest.raises(KeyboardInterrupt):
        load("raise KeyboardInterrupt")


def test_only_modules_of_the_program_belong_to_it():
    assert is_program_module(execution) and is_program_module(sys.modules[PromptQueue.__module__])
    assert not is_program_module(os) and not is_program_module(pytest) and not is_program_module(None)
    assert not is_program_module(sys.modules[__name__]), "tests do not"
