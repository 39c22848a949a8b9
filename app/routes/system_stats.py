"""``/system_stats`` and ``/features``: what this server is and runs on, found out without importing torch."""

import logging
import os
import sys
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

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


class SystemRoutes:
    """The facts that do not change are gathered at the first request and kept."""

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
        }

    async def _stats(self, request: web.Request) -> web.Response:
        memory = psutil.virtual_memory()
        system = {
            **self._lasting,
            "ram_total": memory.total,
            "ram_free": memory.available,
            "pytorch_version": torch_version(),
            "argv": sys.argv,
            "ram_model_cache": model_cache_facts(),
        }
        return json_answer({"system": system, "devices": device_facts()})

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
    """The version of torch, from its package's description unless it is imported; empty when it is not installed."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "__version__"):
        return str(torch.__version__)
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def device_facts() -> list[dict[str, Any]]:
    """The devices in bytes of memory, the one that is used first. As long as torch is not imported, the CPU stands for it."""
    model_management = sys.modules.get("comfy.model_management")
    if "torch" in sys.modules and model_management is not None:
        try:
            return _torch_devices(model_management)
        except Exception:
            log.exception("The devices cannot be described; telling about the CPU only")
    memory = psutil.virtual_memory()
    return [
        {
            "name": "cpu",
            "type": "cpu",
            "index": None,
            "vram_total": memory.total,
            "vram_free": memory.available,
            "torch_vram_total": memory.total,
            "torch_vram_free": memory.available,
        }
    ]


def _torch_devices(model_management: Any) -> list[dict[str, Any]]:
    used = model_management.get_torch_device()
    list_all = getattr(model_management, "get_all_torch_devices", list)
    facts = []
    for device in [used, *(device for device in list_all() if device != used)]:
        total, torch_total = model_management.get_total_memory(device, torch_total_too=True)
        free, torch_free = model_management.get_free_memory(device, torch_free_too=True)
        facts.append(
            {
                "name": model_management.get_torch_device_name(device),
                "type": device.type,
                "index": device.index,
                "vram_total": total,
                "vram_free": free,
                "torch_vram_total": torch_total,
                "torch_vram_free": torch_free,
            }
        )
    return facts
