"""What a case kept on a server, and how far two servers' results are apart."""

import json
from typing import Any

import torch
from live_server import LiveServer
from safetensors.torch import load

Kept = list[Any]
CLOSE_LATENT, CLOSE_PICTURE = 4e-3, 4e-2  # of the standard deviation of what upstream gives
CLOSE_LEVELS = 2.0  # mean difference of a picture, of 255


def outcome(server: LiveServer, prompt: dict[str, Any], timeout_s: float = 300) -> Kept | str:
    """What *prompt* keeps on *server*, or what went wrong."""
    count = sum(node["class_type"] == "Keep" for node in prompt.values())
    files = [server.base / "output" / str(number) for number in range(count)]
    for file in files:
        file.unlink(missing_ok=True)
    try:
        run = server.run(prompt, timeout_s)
    except AssertionError as error:
        return f"refused: {str(error)[:400]}"
    errors = run.of_type("execution_error")
    if errors:
        return f"{errors[0]['node_type']}: {errors[0]['exception_message'][:300]}"
    if not all(file.is_file() for file in files):
        return "kept nothing"
    kept = [_read(file.read_bytes()) for file in files]
    finite = all(torch.isfinite(value).all() for value in kept if isinstance(value, torch.Tensor))
    return kept if finite else "not finite"


def _read(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return load(data)["kept"]


def differences(here: Kept | str, upstream: Kept) -> list[float] | str:
    """The largest difference of each value: tensors in standard deviations of upstream's, others 0 or 1. A text says what went wrong."""
    return here if isinstance(here, str) else [_difference(one, other) for one, other in zip(here, upstream, strict=True)]


def _difference(here: Any, upstream: Any) -> float:
    if not isinstance(here, torch.Tensor) or not isinstance(upstream, torch.Tensor):
        return float(isinstance(here, torch.Tensor) or isinstance(upstream, torch.Tensor) or here != upstream)
    if here.shape != upstream.shape:
        return float("inf")
    return float((here - upstream).abs().max() / upstream.std().clamp(min=1e-6)) if here.numel() else 0.0


def far(here: Kept | str, upstream: Kept) -> bool:
    """Whether the results differ by more than they may."""
    apart = differences(here, upstream)
    if isinstance(apart, str):
        return True
    if any(levels > CLOSE_LEVELS for levels in mean_levels(here, upstream)):
        return True
    return any(one > (CLOSE_PICTURE if _is_picture(value) else CLOSE_LATENT) for one, value in zip(apart, upstream, strict=True))


def mean_levels(here: Kept | str, upstream: Kept) -> list[float]:
    """The mean difference of each picture, in steps of 1/255."""
    if isinstance(here, str):
        return []
    pairs = [(one, other) for one, other in zip(here, upstream, strict=True) if _is_picture(other) and _is_picture(one)]
    return [float((one - other).abs().mean() * 255) for one, other in pairs if one.shape == other.shape]


def _is_picture(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[-1] in (1, 3, 4)
