"""/system_stats and /features."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from aiohttp import web

from app.routes import system_stats
from comfy_api import feature_flags


async def stats(client):
    return await (await client.get("/system_stats")).json()


async def test_the_system_is_described(client):
    system = (await stats(client))["system"]
    assert system["argv"] == sys.argv
    assert system["os"] == sys.platform and system["python_version"] == sys.version
    assert system["ram_total"] > system["ram_free"] > 2**20
    assert system["comfyui_version"].count(".") == 2
    assert system["pytorch_version"].split("+")[0].count(".") == 2
    assert {
        "required_frontend_version",
        "installed_templates_version",
        "required_templates_version",
        "embedded_python",
        "comfy_package_versions",
        "deploy_environment",
    } <= system.keys()
    assert all(entry.keys() == {"name", "installed", "required"} for entry in system["comfy_package_versions"])


async def test_without_torch_the_cpu_is_the_only_device(client):
    (device,) = (await stats(client))["devices"]
    assert (device["name"], device["type"], device["index"]) == ("cpu", "cpu", None)
    assert device["vram_total"] == device["torch_vram_total"] > device["vram_free"] > 2**20


async def stats_of_cards(aiohttp_client, **more):
    """What a server says whose devices are two cards, with *more* replaced in what answers for them."""
    module = SimpleNamespace()
    devices = [SimpleNamespace(type="cuda", index=index) for index in (1, 0)]
    module.get_torch_device = lambda: devices[0]
    module.get_all_torch_devices = lambda: devices[::-1]
    module.get_torch_device_name = lambda device: f"{device.type}:{device.index} Card"
    module.get_total_memory = lambda device, torch_total_too=False: (8000 + device.index, 500)
    module.get_free_memory = lambda device, torch_free_too=False: (4000, 100)
    for name, value in more.items():
        setattr(module, name, value)
    app, routes = web.Application(), web.RouteTableDef()
    system_stats.SystemRoutes(module, torch_is_imported=lambda: True).add_routes(routes)
    app.add_routes(routes)
    return await stats(await aiohttp_client(app))


async def test_with_torch_every_device_is_listed_the_used_one_first(aiohttp_client):
    answer = await stats_of_cards(aiohttp_client)
    assert answer["devices"] == [
        {
            "name": f"cuda:{index} Card",
            "type": "cuda",
            "index": index,
            "vram_total": 8000 + index,
            "vram_free": 4000,
            "torch_vram_total": 500,
            "torch_vram_free": 100,
        }
        for index in (1, 0)
    ]


async def test_devices_that_cannot_be_asked_do_not_break_the_answer(aiohttp_client, caplog):
    answer = await stats_of_cards(aiohttp_client, get_total_memory=lambda *_, **__: 1 / 0)
    assert answer["devices"][0]["type"] == "cpu"
    assert "ZeroDivisionError" in caplog.text


def test_torch_that_is_not_installed_has_no_version(monkeypatch):
    def missing(name):
        raise system_stats.PackageNotFoundError(name)

    monkeypatch.setattr(system_stats, "version", missing)
    assert system_stats.torch_version() == ""


async def test_features_are_those_of_the_negotiation(client, monkeypatch):
    monkeypatch.setitem(feature_flags.SERVER_FEATURE_FLAGS, "from_a_pack", {"a": 1})
    answer = await (await client.get("/api/features")).json()
    assert answer == feature_flags.get_server_features()
    assert answer["from_a_pack"] == {"a": 1}
    assert answer["supports_preview_metadata"] is True and answer["node_replacements"] is True and answer["assets"] is False
    assert answer["max_upload_size"] == 100 * 1024 * 1024
    assert answer["extension"] == {"manager": {"supports_v4": True}}


def test_importing_the_server_imports_neither_torch_nor_numpy():
    code = "import sys, server; print([name for name in ('torch', 'numpy', 'scipy', 'PIL.Image') if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
