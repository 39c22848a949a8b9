"""Whether comfy-kitchen is there, and its layouts. It is imported at first use: that takes seconds."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
from argparse import Namespace
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from comfy.cli_args import args
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")
log = logging.getLogger(__name__)
FIRST_CUDA = 13  # that comfy-kitchen's own kernels are built for
INSTALL = "pip install -r requirements-quantised.txt -c constraints.txt"


@functools.cache
def is_installed() -> bool:
    """Whether comfy-kitchen can be imported; imports nothing."""
    return importlib.util.find_spec("comfy_kitchen") is not None


@functools.cache
def version() -> str:
    """comfy-kitchen's version, "" where it is missing; imports nothing."""
    return importlib.metadata.version("comfy-kitchen") if is_installed() else ""


@functools.cache
def layouts() -> ModuleType:
    """:mod:`comfy.quantisation.layouts`, which needs comfy-kitchen. Raises ``ImportError`` where that is missing."""
    module = importlib.import_module("comfy.quantisation.layouts")
    choose_kernels(importlib.import_module("comfy_kitchen"), args)
    module.register()
    return module


@functools.cache
def fused_rope() -> Callable[[Tensor, Tensor], Tensor] | None:
    """comfy-kitchen's rotation of queries or keys by their positions, where it has kernels for the cards of this machine; else None."""
    if not is_installed() or int((torch.version.cuda or "0").split(".")[0]) < FIRST_CUDA:
        return None
    layouts()
    package = importlib.import_module("comfy_kitchen")
    kernels = package.list_backends().get("cuda", {})
    return package.apply_rope1 if kernels.get("available") and not kernels.get("disabled") else None


@functools.cache
def neighbourhood_attention() -> Callable[..., Tensor] | None:
    """comfy-kitchen's attention (B x frames x height x width x heads x channels) to neighbourhoods, where it is installed; else None."""
    if not is_installed():
        return None
    layouts()
    return importlib.import_module("comfy_kitchen").na3d


def choose_kernels(comfy_kitchen: Any, args: Namespace) -> None:
    """Switch kernels of *comfy_kitchen* off as ComfyUI does, and say in one line which are left.

    Triton's are used with ``--enable-triton-backend`` only, CUDA's where torch was built for CUDA 13 or later.
    """
    kernels = comfy_kitchen.list_backends()
    if args.disable_triton_backend or not args.enable_triton_backend:
        comfy_kitchen.disable_backend("triton")
    elif not kernels.get("triton", {}).get("available"):
        log.warning(
            "--enable-triton-backend: %s", kernels.get("triton", {}).get("unavailable_reason") or "comfy-kitchen has no such kernels"
        )
    built_for = int((torch.version.cuda or "0").split(".")[0])
    if built_for < FIRST_CUDA:
        comfy_kitchen.disable_backend("cuda")
    if 0 < built_for < FIRST_CUDA:
        log.warning("Quantised layers are slow: install a torch for CUDA %d or later (this is for %s)", FIRST_CUDA, torch.version.cuda)
    left = [name for name, known in comfy_kitchen.list_backends().items() if known["available"] and not known["disabled"]]
    log.info("Kernels of comfy-kitchen in use: %s", ", ".join(left) or "none")
