"""Switches of torch itself that flags set."""

from __future__ import annotations

import logging
from argparse import Namespace

from comfy.cli_flags import PerformanceFeature
from comfy.lazy_import import lazy_module

torch = lazy_module("torch")
log = logging.getLogger(__name__)


def adds_in_fp16(args: Namespace, kind: str) -> bool:
    """Whether ``--fast fp16_accumulation`` was given for a *kind* of device (:attr:`DeviceTable.kind`) that it applies to."""
    return kind in ("cuda", "rocm") and PerformanceFeature.Fp16Accumulation in (args.fast or ())


def apply_torch_settings(args: Namespace, kind: str) -> None:
    """Let matrix products of half precision add up in half precision if the flags ask for it; torch can from 2.7 on."""
    matmul = torch.backends.cuda.matmul if adds_in_fp16(args, kind) else None
    if matmul is None:
        return
    try:
        matmul.allow_fp16_accumulation = True
    except AttributeError:
        log.warning("--fast fp16_accumulation: torch %s cannot add in half precision; install 2.7 or later", torch.__version__)
    else:
        log.info("--fast fp16_accumulation: matrix products of half precision add up in half precision")
