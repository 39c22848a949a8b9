"""What flags say to libraries through the environment, before these are imported."""

import os
from argparse import Namespace

from comfy.residency.allocator import choose_allocator
from comfy.residency.attention_asked import missing_package


def set_environment(args: Namespace) -> None:
    """Set what libraries read from the environment when they are imported; must run before torch is.

    Raises ``SystemExit`` when the package of the attention that a flag asks for is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    visible = str(args.cuda_device) if args.cuda_device is not None else None
    if args.default_device is not None:
        others = [str(index) for index in range(32) if index != args.default_device]
        visible = ",".join([str(args.default_device), *others])
    if visible is not None:
        os.environ.update(dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES"), visible))
    if args.oneapi_device_selector is not None:
        os.environ["ONEAPI_DEVICE_SELECTOR"] = args.oneapi_device_selector
    if args.offline or os.environ.get("KEEPWARM_OFFLINE"):
        os.environ["HF_HUB_OFFLINE"] = "1"
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    choose_allocator(args)
    if missing := missing_package(args):
        raise SystemExit(missing)
