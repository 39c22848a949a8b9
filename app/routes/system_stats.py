"""``/system_stats`` and ``/features``: what this server is and runs on, found out without importing torch."""

import logging
import os
import sys
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import psutil
from aiohttp import web

from app.files.strict_json import json_answer
from app.frontend_management import FrontendManager
from comfy import model_management
from comfy.deploy_environment import get_deploy_environment
from comfy_api import feature_flags
from comfyui_version import __version__

log = logging.getLogger(__name__)

_EMBEDDED_FOLDER = "python_embeded"


class Devices(Protocol):
    """What is asked of ``comfy.model_management``, whose functions node packs may replace. Sizes in bytes."""

    def get_torch_device(self) -> Any:
        """The device in use."""

    def get_all_torch_devices(self, exclude_current: bool = False) -> list[Any]:
        """All of them."""

    def get_torch_device_name(self, device: Any) -> str:
        """One line for people."""

    def get_total_memory(self, dev: Any = None, torch_total_too: bool = False) -> Any:
        """The device's memory and what torch's allocator holds of it."""

    def get_free_memory(self, dev: Any = None, torch_free_too: bool = False) -> Any:
        """What is free, and what of it torch's allocator holds."""


class SystemRoutes:
    """The facts that do not change are gathered at the first request and kept. *torch_is_imported* tells whether *devices* may be asked
    without being the first to import torch."""

    def __init__(self, devices: Devices, torch_is_imported: Callable[[], bool]) -> None:
        self._devices, self._torch_is_imported = devices, torch_is_imported

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Register the routes."""
        routes.get("/system_stats")(self._stats)
        routes.get("/features")(self._features)

    @cached_property
    def _lasting(self) -> dict[str, Any]:
        return {
            "os": sys.platform,
            "comfyui_version": __version__,
            "required_frontend_version": FrontendManager.get_required_frontend_version(),
            "installed_templates_version": FrontendManager.get_installed_templates_version(),
            "required_templates_version": FrontendManager.get_required_templates_version(),
            "comfy_package_versions": FrontendManager.get_comfy_package_versions(),
            "python_version": sys.version,
            "embedded_python": os.path.basename(os.path.dirname(sys.executable)) == _EMBEDDED_FOLDER,
            "deploy_environment": get_deploy_environment(),
            "pytorch_version": torch_version(),
        }

    async def _stats(self, request: web.Request) -> web.Response:
        memory = psutil.virtual_memory()
        system = {
            **self._lasting,
            "ram_total": memory.total,
            "ram_free": memory.available,
            "argv": sys.argv,
            "ram_model_cache": model_cache_facts(),
        }
        return json_answer({"system": system, "devices": self._device_facts()})

    def _device_facts(self) -> list[dict[str, Any]]:
        if self._torch_is_imported():
            try:
                return device_facts(self._devices)
            except Exception:
                log.exception("The devices cannot be described; telling about the CPU only")
        return [host_facts()]

    async def _features(self, request: web.Request) -> web.Response:
        return json_answer(feature_flags.get_server_features())


def model_cache_facts() -> dict[str, Any]:
    """Sizes in bytes and counters of the cache of models in RAM; all 0 when it is off."""
    stats = model_management.ram_cache().stats()
    if stats is None:
        return {"cap": 0, "kept": 0, "models": 0, "hits": 0, "misses": 0}
    return {
        "cap": stats.cap_bytes,
        "kept": stats.kept_bytes,
        "models": stats.kept,
        "hits": stats.counters.hits,
        "misses": stats.counters.misses,
    }


def torch_version() -> str:
    """The version of torch, from its package's description; empty when it is not installed."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def host_facts() -> dict[str, Any]:
    """The CPU in the form of a device, sizes in bytes: what stands for all devices as long as torch is not imported."""
    memory = psutil.virtual_memory()
    return {
        "name": "cpu",
        "type": "cpu",
        "index": None,
        "vram_total": memory.total,
        "vram_free": memory.available,
        "torch_vram_total": memory.total,
        "torch_vram_free": memory.available,
    }


def device_facts(devices: Devices) -> list[dict[str, Any]]:
    """Every device, sizes in bytes, the one that is used first. Raises what asking the devices raises."""
    used = devices.get_torch_device()
    facts = []
    for device in [used, *(device for device in devices.get_all_torch_devices() if device != used)]:
        total, torch_total = devices.get_total_memory(device, torch_total_too=True)
        free, torch_free = devices.get_free_memory(device, torch_free_too=True)
        facts.append(
            {
                "name": devices.get_torch_device_name(device),
                "type": device.type,
                "index": device.index,
                "vram_total": total,
                "vram_free": free,
                "torch_vram_total": torch_total,
                "torch_vram_free": torch_free,
            }
        )
    return facts
