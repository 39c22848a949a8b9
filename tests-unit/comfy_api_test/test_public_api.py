"""ComfyAPI, its blocking twin, its versions, and what they reach: progress, replacements and cache providers."""

import asyncio
import contextvars
import inspect
import subprocess
import sys
import threading
import types

import pytest
import torch
from PIL import Image

from comfy_api import v0_0_1, v0_0_2
from comfy_api.internal import ComfyAPIWithVersion, ProxiedSingleton, get_all_versions, register_versions
from comfy_api.internal.api_registry import parse_version, registered_versions
from comfy_api.internal.async_to_sync import create_sync_class
from comfy_api.internal.replacement_receiver import replacement_receiver
from comfy_api.internal.singleton import SingletonMetaclass
from comfy_api.latest import Caching, ComfyAPI, ComfyAPISync, io
from comfy_api.latest import _execution as execution_api
from comfy_api.version_list import supported_versions
from comfy_execution import cache_provider
from comfy_execution.utils import CurrentNodeContext

color = contextvars.ContextVar("color", default="none")


class Part(ProxiedSingleton):
    async def shade(self, suffix):
        await asyncio.sleep(0)
        return f"{color.get()}{suffix}"

    def plain(self):
        return "plain"


class Whole(ProxiedSingleton):
    class Nested:
        pass

    def __init__(self):
        self.part = Part()
        self.number = 3

    async def fail(self):
        raise KeyError("inside")

    async def again(self):
        return create_sync_class(Part)().shade("!")


@pytest.fixture(autouse=True)
def _fresh_singletons():
    yield
    for cls in (Part, Whole):
        SingletonMetaclass._instances.pop(cls, None)


@pytest.fixture
def providers():
    yield cache_provider._get_cache_providers
    cache_provider._clear_cache_providers()


class Provider(Caching.CacheProvider):
    async def on_lookup(self, context):
        return None

    async def on_store(self, context, value):
        return None


def test_each_class_has_one_instance_of_its_own():
    class Sub(Whole):
        pass

    assert Whole() is Whole("ignored") is Whole.get_instance()
    assert Sub() is not Whole() and isinstance(Sub(), Sub)
    assert ComfyAPI() is ComfyAPI() and v0_0_2.ComfyAPI() is not ComfyAPI()


def test_injected_instance_answers_until_there_is_a_real_one():
    stand_in = types.SimpleNamespace()
    Part.inject_instance(stand_in)
    assert Part() is stand_in
    with pytest.raises(RuntimeError, match="Part is in use already"):
        Part.inject_instance(stand_in)


def test_twin_runs_coroutines_with_the_callers_context():
    color.set("red")
    twin = create_sync_class(Whole)()
    assert twin.part.shade("-ish") == "red-ish"
    assert twin.part.plain() == "plain" and twin.number == 3
    color.set("none")


def test_twin_raises_what_the_coroutine_raises_and_hides_nested_classes():
    twin = create_sync_class(Whole)()
    with pytest.raises(KeyError, match="inside"):
        twin.fail()
    assert not hasattr(twin, "Nested") and hasattr(Whole(), "Nested")
    assert not hasattr(twin, "absent")


def test_the_twin_is_not_a_singleton_but_wraps_the_one_instance():
    sync = create_sync_class(Whole)
    assert sync is create_sync_class(Whole)
    assert sync() is not sync() and sync()._async_instance is Whole()


def test_twin_does_not_block_on_the_loop_it_is_called_from():
    async def node():
        return create_sync_class(Whole)().part.shade("?")

    assert asyncio.run(asyncio.wait_for(node(), 10)) == "none?"


def test_twin_may_be_called_from_a_coroutine_that_a_twin_runs():
    assert create_sync_class(Whole)().again() == "none!"


def test_twin_keeps_signature_and_docstring():
    assert list(inspect.signature(ComfyAPISync().execution.set_progress).parameters) == [
        "value", "max_value", "node_id", "preview_image", "ignore_size_limit",
    ]  # fmt: skip
    assert not inspect.iscoroutinefunction(ComfyAPISync().caching.register_provider)
    assert inspect.iscoroutinefunction(ComfyAPI().caching.register_provider)


def test_provider_registration_works_awaited_blocking_and_on_the_class(providers):
    first, second, third = Provider(), Provider(), Provider()
    asyncio.run(ComfyAPI().caching.register_provider(first))
    ComfyAPISync().caching.register_provider(second)
    Caching.register_provider(third)
    assert providers() == (first, second, third)

    async def drop():
        await Caching.unregister_provider(second)
        await v0_0_2.ComfyAPI().caching.unregister_provider(first)

    asyncio.run(drop())
    v0_0_1.ComfyAPISync().caching.unregister_provider(third)
    assert providers() == ()


@pytest.mark.parametrize("wrong", [object(), Provider, None])
def test_an_object_that_is_not_a_provider_is_refused(providers, wrong):
    with pytest.raises(TypeError, match="derives from Caching.CacheProvider"):
        Caching.register_provider(wrong)
    with pytest.raises(TypeError, match="derives from Caching.CacheProvider"):
        ComfyAPISync().caching.register_provider(wrong)
    assert providers() == ()


def test_caching_types_are_the_engines_own():
    assert Caching is ComfyAPI.Caching
    assert Caching.CacheProvider is cache_provider.CacheProvider and Caching.CacheValue is cache_provider.CacheValue
    assert Caching.CacheContext is cache_provider.CacheContext


class Registry:
    def __init__(self):
        self.calls = []

    def update_progress(self, node_id, value, max_value, image):
        self.calls.append((node_id, value, max_value, image, threading.current_thread() is threading.main_thread()))


@pytest.fixture
def registry(monkeypatch):
    found = Registry()
    monkeypatch.setattr(execution_api, "get_progress_state", lambda: found)
    return found


def test_progress_defaults_to_the_running_node_async_and_blocking(registry):
    with CurrentNodeContext("prompt", "node-7", 0):
        asyncio.run(ComfyAPI().execution.set_progress(1, 4))
        ComfyAPISync().execution.set_progress(2, 4)
        ComfyAPISync().execution.set_progress(3, 4, node_id="other")
    assert [call[:3] for call in registry.calls] == [("node-7", 1, 4), ("node-7", 2, 4), ("other", 3, 4)]
    assert [call[4] for call in registry.calls] == [True, False, False]


def test_progress_outside_of_a_node_needs_an_id(registry):
    with pytest.raises(ValueError, match="pass node_id"):
        ComfyAPISync().execution.set_progress(1, 2)
    ComfyAPISync().execution.set_progress(1, 2, node_id="n")
    assert len(registry.calls) == 1


def test_preview_may_be_a_batch_of_images_or_a_pil_image(registry, monkeypatch):
    monkeypatch.setattr(execution_api.args, "preview_size", 300)
    batch_BHWC = torch.zeros(2, 4, 6, 3)
    batch_BHWC[0, ..., 0] = 2.0
    ComfyAPISync().execution.set_progress(1, 2, "n", batch_BHWC)
    ComfyAPISync().execution.set_progress(1, 2, "n", Image.new("RGB", (3, 3)), ignore_size_limit=True)
    (format, image, size), (_, _, unlimited) = registry.calls[0][3], registry.calls[1][3]
    assert (format, size, image.size, image.getpixel((0, 0)), unlimited) == ("JPEG", 300, (6, 4), (255, 0, 0), None)


def test_node_replacement_reaches_the_server_and_needs_none(monkeypatch):
    seen = []
    replace = io.NodeReplace("New", "Old")
    monkeypatch.setattr(replacement_receiver, "_receive", None)
    replacement_receiver.connect(seen.append)
    ComfyAPISync().node_replacement.register(replace)
    assert seen == [replace]
    replacement_receiver.connect(None)
    ComfyAPISync().node_replacement.register(replace)
    assert seen == [replace]


def test_versions_are_registered_oldest_first():
    before = list(registered_versions)
    try:
        register_versions([ComfyAPIWithVersion(api.VERSION, api) for api in supported_versions])
        assert [entry.version for entry in get_all_versions()] == ["0.0.1", "0.0.2", "latest"]
    finally:
        registered_versions[:] = before
    assert parse_version("0.10.0") > parse_version("0.9.9")
    with pytest.raises(ValueError, match="'1.x' is not an API version"):
        parse_version("1.x")


@pytest.mark.parametrize("version", [v0_0_1, v0_0_2])
def test_older_versions_offer_the_same_names(version):
    for name in version.__all__:
        assert hasattr(version, name)
    assert version.io is io and issubclass(version.ComfyAPI, ComfyAPI)
    assert issubclass(version.Input, object) and hasattr(version.Types, "VideoContainer")


def test_older_import_places_give_the_same_objects():
    import comfy_api.input
    import comfy_api.input.basic_types
    import comfy_api.input_impl.video_types
    import comfy_api.util.video_types
    from comfy_api.latest import Input, InputImpl, Types

    assert comfy_api.input.ImageInput is comfy_api.input.basic_types.ImageInput is Input.Image
    assert comfy_api.input_impl.video_types.VideoFromFile is InputImpl.VideoFromFile
    assert comfy_api.util.video_types.VideoContainer is Types.VideoContainer


def test_importing_every_version_needs_no_heavy_package():
    code = (
        "import sys, comfy_api.version_list, comfy_api.torch_helpers\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'av', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr
