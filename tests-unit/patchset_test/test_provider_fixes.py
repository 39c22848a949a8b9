"""The series provider-fixes on a small checkout that has its places: alone, with linear-signatures in either order, and refused."""

import ast
import hashlib
import subprocess

import linear_checkout
import pytest

from patchset.command_line import main
from patchset.plan import PROJECT
from patchset.series.provider_fixes import SERIES

CACHING = (
    f"import asyncio\n{linear_checkout.CACHING}"
    + """

class BasicCache:
    def __init__(self, key_class, enable_providers=False):
        self.enable_providers = enable_providers
        self._pending_store_tasks: set = set()

    async def _set_immediate(self, node_id, value):
        cache_key = self.key(node_id)
        self.cache[cache_key] = value

        await self._notify_providers_store(node_id, cache_key, value)

    async def _get_immediate(self, node_id):
        cache_key = self.key(node_id)
        external_result = await self._check_providers_lookup(node_id, cache_key)
        return external_result

    async def _notify_providers_store(self, node_id, cache_key, value):
        asyncio.create_task(self._safe_provider_store(node_id, value))

    @staticmethod
    async def _safe_provider_store(context, value):
        await provider.on_store(context, value)

    async def _check_providers_lookup(self, node_id, cache_key):
        return await provider.on_lookup(self._build_context(node_id, cache_key))

    def _is_external_cacheable_value(self, value):
        return hasattr(value, "ui")

    def _get_class_type(self, node_id):
        return self.dynprompt.get_node(node_id)

    def _build_context(self, node_id, cache_key):
        return _serialize_cache_key(cache_key)

    async def _ensure_subcache(self, node_id, children_ids):
        subcache = BasicCache(self.key_class)
        await subcache.set_prompt(self.dynprompt, children_ids, self.is_changed_cache)
        return subcache
"""
)
EXECUTION = """import asyncio
from comfy_execution.graph_utils import GraphBuilder, is_link
from comfy_execution.cache_provider import _has_cache_providers, _get_cache_providers, _logger as _cache_logger


async def execute(caches, execution_list, unique_id, inputs, required_inputs, new_output_ids, new_output_links):
    if required_inputs:
        for i in required_inputs:
            execution_list.make_input_strong_link(unique_id, i)
        return
    for node_id in new_output_ids:
        execution_list.add_node(node_id)
        execution_list.cache_link(node_id, unique_id)


class PromptExecutor:
    def __init__(self, server):
        self.server = server

    def _notify_prompt_lifecycle(self, event, prompt_id):
        for provider in _get_cache_providers():
            provider.on_prompt_end(prompt_id)

    async def execute_async(self, prompt, prompt_id, execute_outputs):
        self._notify_prompt_lifecycle("start", prompt_id)
        try:
            node_ids = list(prompt.keys())
            cache_results = await asyncio.gather(
                *(self.caches.outputs.get(node_id) for node_id in node_ids)
            )
        finally:
            self._notify_prompt_lifecycle("end", prompt_id)


async def validate_inputs(prompt, item):
    return await validate_inputs(prompt, item)
"""
MAIN = """import execution
from protocol import BinaryEventTypes

if __name__ == "__main__":
    try:
        serve()
    finally:
        asset_seeder.shutdown()
        cleanup_temp()
"""
INTERFACE = '''class CacheProvider(ABC):
    """Abstract base class for external cache providers.
    Exceptions from provider methods are caught by the caller and never break execution.
    """

    async def on_store(self, context, value):
        """Called after local store. Dispatched via asyncio.create_task."""
        pass
'''
API = '''class ComfyAPI_latest(ComfyAPIBase):
    class Caching(ProxiedSingleton):
        """External caches."""
        from ._caching import CacheProvider, CacheContext, CacheValue

        async def register_provider(self, provider) -> None:
            pass
'''
FILES = {
    "comfyui_version.py": '__version__ = "0.30.0"\n',
    "execution.py": EXECUTION,
    "comfy_execution/caching.py": CACHING,
    "main.py": MAIN,
    "comfy_api/latest/_caching.py": INTERFACE,
    "comfy_api/latest/__init__.py": API,
}
OURS, OTHER = ["--series", "provider-fixes"], ["--series", "linear-signatures"]


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "ComfyUI"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    git(root, "init", "-q", "-b", "master")
    git(root, "config", "user.name", "Ada")
    git(root, "config", "user.email", "ada@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    return root


def git(root, *arguments):
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def state(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def test_it_is_applied_once_and_undone_byte_for_byte(checkout, capsys):
    before = state(checkout)
    assert main(["apply", str(checkout), *OURS]) == 0
    applied = state(checkout)
    assert {name for name in before if applied[name] != before[name]} == before.keys() - {"comfyui_version.py"}
    assert main(["apply", str(checkout), *OURS]) == 0
    assert "nothing to do" in capsys.readouterr().out and state(checkout) == applied
    assert main(["revert", str(checkout), *OURS]) == 0
    assert state(checkout) == before and git(checkout, "status", "--porcelain") == ""


def test_the_old_way_is_gone_and_the_new_one_is_called(checkout):
    main(["apply", str(checkout), *OURS])
    for name in FILES:
        ast.parse((checkout / name).read_text())
    caching = (checkout / "comfy_execution/caching.py").read_text()
    assert "asyncio" not in caching and "_provider" not in caching.replace("enable_providers", "")
    for line in (
        "        if self.external is not None:\n            await self.external.store(node_id, value)\n",
        "        subcache.external = self.external\n        await subcache.set_prompt(",
    ):
        assert line in caching
    executor = (checkout / "execution.py").read_text()
    assert "_cache_logger" not in executor and "_notify_prompt_lifecycle" not in executor
    assert executor.count("await prefetch(") == 3
    assert "CacheValue\n        # Providers need" in (checkout / "comfy_api/latest/__init__.py").read_text()
    assert "        close_providers()\n        asset_seeder.shutdown()\n        cleanup_temp()\n" in (checkout / "main.py").read_text()


@pytest.mark.parametrize("order", [OURS + OTHER, OTHER + OURS], ids=["first", "second"])
@pytest.mark.parametrize("at_once", [True, False])
def test_both_series_fit_together_in_either_order(checkout, order, at_once):
    before = state(checkout)
    for flags in [order] if at_once else [order[:2], order[2:]]:
        assert main(["apply", str(checkout), *flags] if at_once else ["apply", str(checkout), *flags, "--commit"]) == 0
    together = state(checkout)
    assert main(["apply", str(checkout), *OURS, *OTHER]) == 0
    assert state(checkout) == together
    assert "comfy_execution/signatures.py" in together
    assert main(["revert", str(checkout), *OTHER, *OURS]) == 0
    assert state(checkout) == before


@pytest.mark.parametrize("commit", [[], ["--commit"]], ids=["plain", "commit"])
@pytest.mark.parametrize(("first", "second"), [(OURS, OTHER), (OTHER, OURS)], ids=["ours", "other"])
def test_either_series_can_be_undone_alone_also_from_under_the_other(checkout, first, second, commit):
    assert main(["apply", str(checkout), *second]) == 0
    alone = state(checkout)
    assert main(["revert", str(checkout)]) == 0
    before = state(checkout)
    assert main(["apply", str(checkout), *OURS, *OTHER, *commit]) == 0
    assert main(["revert", str(checkout), *first]) == 0
    assert state(checkout) == alone
    assert main(["revert", str(checkout)]) == 0
    assert state(checkout) == before and (git(checkout, "status", "--porcelain") or "") == ""


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("execution.py", "self.caches.outputs.get(node_id)", "self.caches.outputs.find(node_id)", "cache_results"),
        ("execution.py", "_logger as _cache_logger", "_logger", "_cache_logger"),
        ("execution.py", "make_input_strong_link(unique_id, i)", "link(unique_id, i)", "make_input_strong_link"),
        ("comfy_execution/caching.py", "self._pending_store_tasks: set = set()", "self._tasks = set()", "BasicCache.__init__"),
        ("comfy_execution/caching.py", "provider.on_lookup(", "provider.find(", "_check_providers_lookup"),
        ("main.py", "finally:", "except KeyboardInterrupt:", "one try there that has a finally"),
        ("main.py", "BinaryEventTypes", "EventTypes", "from protocol import BinaryEventTypes"),
        ("comfy_api/latest/_caching.py", "Dispatched", "Sent", "on_store"),
        ("comfy_api/latest/__init__.py", ", CacheValue", "", "ComfyAPI_latest.Caching"),
    ],
)
def test_altered_places_are_refused_by_name(checkout, capsys, name, old, new, told):
    text = (checkout / name).read_text()
    assert old in text
    (checkout / name).write_text(text.replace(old, new))
    git(checkout, "commit", "-q", "-am", "edited")
    before = state(checkout)
    assert main(["apply", str(checkout), *OURS]) == 1
    printed = "".join(capsys.readouterr())
    assert name in printed and told in printed
    assert state(checkout) == before


def test_every_module_it_brings_needs_only_those_it_brings_and_what_is_there():
    there = {"cache_provider", "caching", "graph", "graph_utils"}
    brought = {
        target.removeprefix("comfy_execution/").removesuffix(".py").replace("/", ".") for _, target in SERIES.copied(with_tests=False)
    }
    for source, _ in SERIES.copied(with_tests=False):
        for line in ast.walk(ast.parse((PROJECT / source).read_text())):
            if isinstance(line, ast.ImportFrom) and (line.module or "").startswith("comfy_execution."):
                assert line.module.removeprefix("comfy_execution.") in there | brought, f"{source}: {line.module}"
