"""Which allocator torch uses on NVIDIA cards: chosen by an environment variable before torch is imported, so nothing here imports it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import subprocess
from argparse import Namespace
from collections.abc import Callable, MutableMapping

from comfy.cli_flags import PerformanceFeature

log = logging.getLogger(__name__)
VARIABLE = "PYTORCH_CUDA_ALLOC_CONF"
ASYNC = "backend:cudaMallocAsync"
LIST_TIMEOUT_S = 5.0
FIRST_CUDA_FOR_ALL = 130  # builds for CUDA 13 run on no card without memory pools
# Cards from before Pascal, and the smallest Turing ones, whose driver has no memory pools.
WITHOUT_POOLS = re.compile(
    r"GTX TITAN X|GTX (9[5-8]0|75?0|745)\b|\b9[34]5M|\b8[45]0M|GTX 16[35]0|MX1[13]0|Quadro (K620|K[12]200|M\d+)|Tesla M(4|6|10|40|60)\b"
)


def choose_allocator(
    args: Namespace,
    environment: MutableMapping[str, str] = os.environ,
    torch_version: Callable[[], str] | None = None,
    card_names: Callable[[], list[str]] | None = None,
) -> bool:
    """Ask for CUDA's own asynchronous allocator in *environment* as ComfyUI does; whether that was done. Call it before torch is imported.

    ``--cuda-malloc`` asks for it, ``--disable-cuda-malloc`` does not; without either it is asked for where torch was built for CUDA, no
    card lacks memory pools, and ``--fast autotune`` is not given. *args.cuda_malloc* says afterwards what was done. Another allocator
    that the variable names already stays.
    """
    wanted = bool(args.cuda_malloc) or (
        not args.disable_cuda_malloc and _suits(args, torch_version or _torch_version, card_names or _card_names)
    )
    given = environment.get(VARIABLE, "")
    if wanted and "backend:" in given:
        log.info("%s=%s names an allocator already, which is used", VARIABLE, given)
        wanted = ASYNC in given
    elif wanted:
        environment[VARIABLE] = f"{given},{ASYNC}" if given else ASYNC
    args.cuda_malloc = wanted
    return wanted


def _suits(args: Namespace, torch_version: Callable[[], str], card_names: Callable[[], list[str]]) -> bool:
    built = re.search(r"\+cu(\d+)", torch_version())
    if args.cpu or args.simulated_vram_mb or built is None or PerformanceFeature.AutoTune in (args.fast or ()):
        return False
    return int(built[1]) >= FIRST_CUDA_FOR_ALL or not any(WITHOUT_POOLS.search(name) for name in card_names())


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _card_names() -> list[str]:
    """As NVIDIA's own tool lists them; none where that cannot be asked."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=LIST_TIMEOUT_S, check=True).stdout  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(" (UUID")[0] for line in listed.splitlines() if line]
