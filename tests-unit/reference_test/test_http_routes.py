"""docs/reference/http-routes.md: the routes that are this project's own, and examples with the members that the code gives."""

import ast
import dataclasses
import json
import pathlib
import re
import sys

from app.routes.system_stats import model_cache_facts
from comfy.ram_model_cache.cache import RamModelCache
from comfy.ram_model_cache.receipts import Counters
from comfy.ram_model_cache.values import CacheSettings, CacheStats, OwnerHooks
from comfy_execution.local_caches.contract import CacheStats as LocalStats
from comfy_execution.providers.statistics import ProviderStats

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "custom_nodes"))
from keepwarm.measures import Measures  # noqa: E402
from keepwarm.routes import describe  # noqa: E402

TEXT = (ROOT / "docs" / "reference" / "http-routes.md").read_text(encoding="utf-8")
# The first parts of the paths that ComfyUI has too, under /internal the parts below it.
UPSTREAM = {
    "",
    "api",
    "embeddings",
    "experiment",
    "extensions",
    "features",
    "files",
    "folder_paths",
    "free",
    "global_subgraphs",
    "history",
    "i18n",
    "interrupt",
    "logs",
    "models",
    "node_replacements",
    "object_info",
    "prompt",
    "queue",
    "settings",
    "system_stats",
    "upload",
    "user.css",
    "userdata",
    "users",
    "v2",
    "view",
    "view_metadata",
    "workflow_templates",
    "ws",
}


def registered():
    """``METHOD /path`` of every route that is written out in the code."""
    found = set()
    for source in (*ROOT.glob("app/**/*.py"), ROOT / "server.py", *ROOT.glob("custom_nodes/keepwarm/**/*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value).endswith("routes")
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and str(node.args[0].value).startswith("/")
            ):
                found.add(f"{node.func.attr.upper()} {node.args[0].value}")
    return found


def rows(kind):
    """The routes in the page's first table whose second column begins with *kind*."""
    return {
        route
        for line in TEXT.splitlines()
        if re.match(rf"\| `[A-Z]+ /[^|]*\| {kind}", line)
        for route in re.findall(r"`([A-Z]+ /[^`]*)`", line.split("|")[1])
    }


def example(title):
    """The JSON under a heading."""
    return json.loads(re.search(rf"## `{re.escape(title)}`.*?```json\n(.*?)```", TEXT, re.DOTALL)[1])


def names(dataclass):
    return {field.name for field in dataclasses.fields(dataclass)}


def test_own_routes_are_those_that_the_page_lists():
    routes = registered()
    assert len(routes) > 40
    own = {route for route in routes if route.split("/")[1] not in UPSTREAM}
    assert rows("own") == own
    assert rows("extended") <= routes - own and len(rows("extended")) == 5


class Model:
    """The least that the cache takes for a model."""

    parent = None

    def __init__(self):
        self.model = self

    def clone(self):
        """Another one over the same weights."""
        clone = Model()
        clone.model, clone.parent = self.model, self
        return clone


def test_the_example_of_caches_has_the_members_that_the_code_gives():
    models, results = example("GET /caches")["models"], example("GET /caches")["results"]
    assert set(models["stats"]) == names(CacheStats) and set(models["stats"]["counters"]) == names(Counters)
    cache = RamModelCache(CacheSettings(100), OwnerHooks(measure=lambda patcher: {1: 1}), start_thread=lambda run: None)
    cache.fetch({"key": 1}, lambda missing: {"key": Model()})
    (entry,) = cache.entries()
    assert models["entries"] and all(set(one) == set(entry) for one in models["entries"])
    assert set(results) == {"mode", "local", "providers"} and set(results["local"]) == names(LocalStats)
    assert results["providers"] and all(set(one) == names(ProviderStats) for one in results["providers"])


def test_every_member_of_models_is_explained():
    table = TEXT[TEXT.index("| `stats.cap_bytes`") : TEXT.index("`results`: node results")]
    for name in (*names(CacheStats) - {"counters"}, *names(Counters)):
        assert re.search(rf"[.`]{name}`", table), name
    for name in example("GET /caches")["models"]["entries"][0].keys() - {"model"}:
        assert f"`{name}`" in table, name


def test_the_example_of_system_stats_has_the_members_that_the_code_gives():
    assert set(example("GET /system_stats")["ram_model_cache"]) == set(model_cache_facts())


class Provider:
    """The least that the pack describes."""

    url, read_only, store, measures = "file:///srv", False, type("Store", (), {"name": "file"}), Measures()


def test_the_examples_of_the_pack_have_the_members_that_the_code_gives():
    (one,) = example("GET /keepwarm/caches")["providers"]
    assert set(one) == set(describe(Provider))
    metrics = TEXT[TEXT.index("## `GET /keepwarm/metrics`") :]
    for name in Measures.NAMES:
        assert f"keepwarm_cache_{name}_total{{" in metrics, name
