"""Switches of torch itself that flags set."""

from __future__ import annotations

import logging
import os
import re
from argparse import Namespace

from comfy.cli_flags import PerformanceFeature
from comfy.lazy_import import lazy_module

torch = lazy_module("torch")
log = logging.getLogger(__name__)
MIOPEN_VARIABLE = "COMFYUI_ENABLE_MIOPEN"
RDNA2_OR_OLDER = re.compile(r"gfx(103[015]|101[0-2]|90[06]|803)")


def adds_in_fp16(args: Namespace, kind: str) -> bool:
    """Whether ``--fast fp16_accumulation`` was given for a *kind* of device (:attr:`DeviceTable.kind`) that it applies to."""
    return kind in ("cuda", "rocm") and PerformanceFeature.Fp16Accumulation in (args.fast or ())


def apply_torch_settings(args: Namespace, kind: str) -> None:
    """Set what flags ask of torch, for a *kind* of device (:attr:`DeviceTable.kind`), as ComfyUI does.

    ``--deterministic``: deterministic algorithms where there are any, a warning elsewhere. On cards: trying cuDNN's algorithms out as
    ``--fast autotune`` says, no MIOpen on newer AMD cards, reductions in half precision in attention that is written out, sums of
    products in half precision if asked for (torch can from 2.7 on). TF32 stays as torch has it: for convolutions, not for matrix products.
    """
    if args.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        log.info("--deterministic: torch uses deterministic algorithms where it has them")
    if kind not in ("cuda", "rocm"):
        return
    torch.backends.cudnn.benchmark = PerformanceFeature.AutoTune in (args.fast or ())
    if kind == "rocm" and os.environ.get(MIOPEN_VARIABLE) != "1" and not RDNA2_OR_OLDER.search(_architecture()):
        torch.backends.cudnn.enabled = False
        log.info("Convolutions do not use MIOpen, which is slower on these cards (%s=1 keeps it)", MIOPEN_VARIABLE)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    if adds_in_fp16(args, kind):
        _add_in_fp16()


def _architecture() -> str:
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).gcnArchName).split(":")[0]


def _add_in_fp16() -> None:
    try:
        torch.backends.cuda.matmul.allow_fp16_accumulation = True
    except AttributeError:
        log.warning("--fast fp16_accumulation: torch %s cannot add in half precision; install 2.7 or later", torch.__version__)
    else:
        log.info("--fast fp16_accumulation: matrix products of half precision add up in half precision")
