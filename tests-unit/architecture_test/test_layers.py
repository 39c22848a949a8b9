"""Imports point down, and what must work without torch does not import it."""

import ast
import subprocess
import sys

import pytest
from import_graph import all_imports, circles, import_graph
from source_tree import ROOT, Source, imports_at_module_level, sources

# From the bottom up; a module may import its own layer and those before it.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "comfyui_version",
        "protocol",
        "cuda_malloc",
        "utils",
        "comfy.cli_args",
        "comfy.cli_flags",
        "comfy.flag_values",
        "comfy.preload_flags",
        "comfy.store_flags",
        "comfy.tokenizer_flags",
        "comfy.attention_flags",
        "comfy.lazy_import",
        "comfy.interruption",
        "comfy.options",
        "folder_paths",
    ),
    ("comfy",),
    ("comfy_execution",),
    ("comfy_api",),
    (
        "latent_preview",
        "node_helpers",
        "execution",
        "hook_breaker_ac10a0",
        "app",
        "middleware",
        "api_server",
        "comfy_extras",
        "nodes",
        "server",
    ),
    ("main", "starter", "serverless", "fleet", "scripts"),
)
# Modules of names for packs, and who else may import them: ``execution`` is where packs replace functions, so what puts the server
# together and what starts prompts looks them up there. (``patchset`` holds modules for ComfyUI, where these are no facades.)
FACADES: dict[str, tuple[str, ...]] = {
    "comfy_execution.graph": (),
    "comfy_execution.caching": (),
    "comfy_execution.progress": (),
    "execution": ("main", "server", "app.running.compose", "app.running.run_once", "custom_nodes.keepwarm.preload.warmup"),
}
NEEDS_TORCH_LATER = ("torch", "diffusers", "transformers", "torchsde", "scipy", "safetensors.torch")


def layer_of(module: str) -> int | None:
    """The position of *module*'s layer; the longest matching prefix decides."""
    best: tuple[int, int] | None = None
    for position, names in enumerate(LAYERS):
        for name in names:
            if (module == name or module.startswith(name + ".")) and (best is None or len(name) > best[0]):
                best = (len(name), position)
    return None if best is None else best[1]


def test_imports_point_down():
    modules = {source.module: source for source in sources()}
    upward = [
        f"{source.path}:{one.line}: {one.name}"
        for source in modules.values()
        for one in all_imports(source)
        if (own := layer_of(source.module)) is not None and (target := layer_of(one.name)) is not None and target > own
    ]
    assert not upward, "imports from a layer above, wherever they stand and however they are written"


def test_execution_core_needs_neither_torch_nor_models_nor_http():
    found = [
        f"{source.path}:{line}: {name}"
        for source in sources()
        if source.module.startswith("comfy_execution")
        for name, line in imports_at_module_level(source)
        if name.split(".")[0] in ("torch", "comfy", "aiohttp", "numpy", "nodes")
    ]
    assert not found


def test_no_two_modules_import_each_other():
    assert not list(circles(import_graph(sources()))), "annotations and imports inside functions counted"


def test_facades_are_for_packs():
    """Modules that only repeat names for packs are not a way for our own code to reach those names."""
    found = [
        f"{source.path}:{one.line}: {one.name}"
        for source in sources()
        if source.module not in FACADES and not source.module.startswith("patchset.")
        for one in all_imports(source)
        if (facade := _facade(one.name)) is not None and source.module not in FACADES[facade]
    ]
    assert not found


def _facade(name: str) -> str | None:
    """The facade that an imported *name* is, or is in."""
    return next((facade for facade in FACADES if name == facade or name.startswith(facade + ".")), None)


@pytest.mark.parametrize(
    "text",
    [
        "import b",
        "from b import thing",
        "def use():\n    import b",
        "if TYPE_CHECKING:\n    from b import Thing",
        "b = lazy_module('b')",
        "def use():\n    return importlib.import_module('b').thing",
        "def use():\n    return sys.modules['b'].thing",
        "def use():\n    return sys.modules.get('b')",
    ],
)
def test_every_way_to_import_counts_for_circles(text):
    def parsed(name, text):
        return Source(f"{name}.py", name, ast.parse(text), 1)

    assert circles(import_graph([parsed("a", text), parsed("b", "import c"), parsed("c", "from a import x")])) == [["a", "b", "c"]]
    assert circles(import_graph([parsed("a", text), parsed("b", "import c"), parsed("c", "import os")])) == []


def test_building_the_server_imports_no_torch(tmp_path):
    code = (
        "import sys; sys.argv[1:] = ['--base-directory', sys.argv[1], '--cpu']\n"
        "import main\nloop, server, serve = main.start_comfyui()\n"
        f"print([name for name in {NEEDS_TORCH_LATER!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_nothing_outside_the_fleet_imports_ray():
    found = [
        f"{source.path}:{one.line}: {one.name}"
        for source in sources()
        if not source.module.startswith("fleet.on_ray.")
        for one in all_imports(source)
        if one.name.split(".")[0] == "ray"
    ]
    assert not found, "fleet/on_ray/ alone knows Ray"
