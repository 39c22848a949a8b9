"""Imports point down, and what must work without torch does not import it."""

import subprocess
import sys

import pytest
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
    ("main", "starter"),
)
NEEDS_TORCH_LATER = ("torch", "diffusers", "transformers", "torchsde", "scipy", "safetensors.torch")


def layer_of(module: str) -> int | None:
    """The position of *module*'s layer; the longest matching prefix decides."""
    best: tuple[int, int] | None = None
    for position, names in enumerate(LAYERS):
        for name in names:
            if (module == name or module.startswith(name + ".")) and (best is None or len(name) > best[0]):
                best = (len(name), position)
    return None if best is None else best[1]


@pytest.mark.parametrize("source", list(sources()), ids=lambda source: source.path)
def test_imports_point_down(source: Source):
    own = layer_of(source.module)
    if own is None:
        pytest.skip("stands outside the layers")
    upward = [
        f"line {line}: {name}" for name, line in imports_at_module_level(source) if (target := layer_of(name)) is not None and target > own
    ]
    assert not upward, f"{source.path} imports from a layer above it: {upward}"


@pytest.mark.parametrize("source", [s for s in sources() if s.module.startswith("comfy_execution")], ids=lambda source: source.path)
def test_execution_core_needs_neither_torch_nor_models_nor_http(source: Source):
    found = [name for name, _ in imports_at_module_level(source) if name.split(".")[0] in ("torch", "comfy", "aiohttp", "numpy", "nodes")]
    assert not found


def test_no_import_cycles():
    modules = {source.module: source for source in sources()}
    graph = {
        name: {target for imported, _ in imports_at_module_level(source) if (target := _known(imported, modules)) not in (None, name)}
        for name, source in modules.items()
    }
    while free := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in free:
            del graph[name]
    assert not graph, f"these modules import each other in a circle: {sorted(graph)}"


def _known(imported: str, modules: dict[str, Source]) -> str | None:
    """The module of the project that ``import imported`` runs, if it is one."""
    return imported if imported in modules else imported.rpartition(".")[0] if imported.rpartition(".")[0] in modules else None


def test_building_the_server_imports_no_torch(tmp_path):
    code = (
        "import sys; sys.argv[1:] = ['--base-directory', sys.argv[1], '--cpu']\n"
        "import main\nloop, server, serve = main.start_comfyui()\n"
        f"print([name for name in {NEEDS_TORCH_LATER!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
