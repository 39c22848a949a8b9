"""The series ram-model-cache: its copied modules and tests alone, and its edits on small files that only have the places it needs."""

import os
import pathlib
import subprocess
import sys

import libcst as cst
import pytest

from patchset.outcomes import Verdict
from patchset.series.ram_model_cache import SERIES

PROJECT = pathlib.Path(__file__).resolve().parents[2]
NEEDS_COMFYUI = ("ram_model_cache_upstream_test.py", "ram_model_cache_dynamic_test.py", "test_ram_model_cache_patcher.py")
MANAGER = """from comfy.cli_args import args, PerformanceFeature

current_loaded_models{annotation} = []

def free_memory(memory_required, device):
    return []

def load_models_gpu(models):
    return

def cleanup_models_gc():
    pass

def throw_exception_if_processing_interrupted():
    pass
"""
FILES = {
    "comfy/cli_args.py": "x = 1\n\nattn_group = parser.add_mutually_exclusive_group()\nattn_group.add_argument('--x')\n",
    "comfy/sd.py": "def load_clip(a): pass\ndef load_checkpoint_guess_config(a): pass\ndef load_diffusion_model(a): pass\n",
    "comfy/clip_vision.py": "def load(ckpt_path): pass\n",
    "comfy/controlnet.py": "def load_controlnet(ckpt_path): pass\n",
    "nodes.py": "class VAELoader:\n    def load_vae(self, vae_name):\n        return 1\n",
    "execution.py": "async def execute(server): pass\n\n\nclass PromptExecutor:\n    def reset(self):\n        self.success = True\n\n"
    "    async def execute_async(self, prompt): pass\n\n\nclass PromptQueue:\n    def __init__(self, server):\n"
    "        self.flags = {}\n",
    "server.py": "class PromptServer:\n    def __init__(self, loop):\n        @routes.get('/system_stats')\n"
    "        async def system_stats(request):\n            system_stats = {}\n"
    "            return web.json_response(system_stats)\n",
}


def files_of(version):
    annotation = "" if version < (0, 23, 0) else ": list[LoadedModel]"
    return {**FILES, "comfy/model_management.py": MANAGER.format(annotation=annotation)}


def applied(files, version):
    """(files after, verdicts)"""
    modules = {path: cst.parse_module(text) for path, text in files.items()}
    verdicts = []
    for edit in SERIES.edits(version):
        modules[edit.path], outcome = edit.apply(modules[edit.path])
        verdicts.append(outcome.verdict)
    return {path: module.code for path, module in modules.items()}, verdicts


@pytest.mark.parametrize("version", [(0, 20, 0), (0, 22, 3), (0, 23, 0), (0, 33, 0)])
def test_every_place_is_edited_once_by_adding_lines_only(version):
    before = files_of(version)
    after, verdicts = applied(before, version)
    assert set(verdicts) == {Verdict.APPLIED}
    added = [line for path in before for line in after[path].splitlines() if line not in before[path].splitlines()]
    assert all(line in after[path].splitlines() for path in before for line in before[path].splitlines() if line)
    assert len(before) <= 9
    assert len([line for line in added if line]) == 18
    again, verdicts = applied(after, version)
    assert set(verdicts) == {Verdict.ALREADY_THERE}
    assert again == after


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("comfy/model_management.py", "current_loaded_models", "models_on_devices"),
        ("comfy/sd.py", "load_clip", "load_text"),
        ("comfy/cli_args.py", "attn_group", "attention"),
        ("execution.py", "self.flags = {}", "self.flags = dict()"),
        ("server.py", "web.json_response(system_stats)", "web.Response(system_stats)"),
        ("nodes.py", "load_vae", "load"),
        ("execution.py", "self.success = True", "self.succeeded = True"),
    ],
)
def test_a_place_that_changed_is_reported(path, old, new):
    files = files_of((0, 30, 0))
    files[path] = files[path].replace(old, new)
    _, verdicts = applied(files, (0, 30, 0))
    assert Verdict.MISSING in verdicts


@pytest.mark.slow
def test_the_modules_and_their_tests_need_nothing_but_torch_psutil_and_pytest(tmp_path):
    """Laid out by themselves, beside the two ComfyUI modules that they read a flag from."""
    for here, there in SERIES.copied(with_tests=True):
        if pathlib.Path(there).name not in NEEDS_COMFYUI:
            (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / there).write_bytes((PROJECT / here).read_bytes())
    (tmp_path / "comfy" / "memory_management.py").write_text("aimdo_enabled = False\n")
    allowed = "import sys\nfor name in ('numpy.testing', 'aiohttp', 'libcst', 'safetensors', 'PIL'):\n    sys.modules[name] = None\n"
    (tmp_path / "conftest.py").write_text(allowed)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests-unit"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
