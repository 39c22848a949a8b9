"""One small model from text to picture, in float32, on whatever device computes; as a program, on the CPU.

python benchmarks/gpu/reference.py CHECKPOINT LORA OUT.safetensors
"""

from __future__ import annotations

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.gpu.bench import Bench

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIDE, STEPS, SCALE, SEED = 16, 2, 4.0, 11
FLAGS = {"force_fp32": True, "fp32_text_enc": True, "fp32_vae": True}


def small_files(folder: pathlib.Path) -> tuple[str, str]:
    """The paths of a small checkpoint and a LoRA for it; they are written if they are not there."""
    from safetensors.torch import save_file

    from benchmarks.make_addons import lora_tensors
    from benchmarks.make_checkpoint import PARTS, checkpoint_layout, family, write_checkpoint

    sizes = family("sd15", 10)
    checkpoint, lora = folder / "small.safetensors", folder / "small-lora.safetensors"
    if not checkpoint.exists():
        write_checkpoint(str(checkpoint), checkpoint_layout(sizes, PARTS), 0, "fp32", metadata=sizes.metadata())
    if not lora.exists():
        save_file(lora_tensors(sizes), lora)
    return str(checkpoint), str(lora)


@contextlib.contextmanager
def exact(bench: Bench) -> Iterator[None]:
    """Everything is computed in float32 inside, without shortened products."""
    import torch

    from comfy.cli_args import args

    before, convolutions = dict(vars(args)), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    vars(args).update(FLAGS)
    try:
        yield
    finally:
        vars(args).clear()
        vars(args).update(before)
        torch.backends.cudnn.allow_tf32 = convolutions
        bench.unload()


def outputs(checkpoint: str, lora: str, share: float | None) -> dict[str, Any]:
    """Named results as host tensors. *share* of the network's weights is on the device, the rest streamed; None: as the manager decides."""
    import torch

    import comfy.model_management
    import comfy.sample
    import comfy.sd
    import comfy.utils
    from comfy.residency.memory_states import VRAMState

    devices = comfy.model_management.manager().devices
    state = devices.vram_state
    if share is not None:
        devices.vram_state = VRAMState.NO_VRAM
    try:
        model, clip, vae = comfy.sd.load_checkpoint_guess_config(checkpoint)[:3]
        weights, _ = comfy.utils.load_torch_file(lora, safe_load=True), None
        changed, _ = comfy.sd.load_lora_for_models(model, clip, weights, 1.0, 0.0)
        texts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a seven", "")]
        latent = torch.zeros(1, 4, SIDE, SIDE)
        noise = comfy.sample.prepare_noise(latent, SEED)
        found = {"text": texts[0][0][0]}
        for name, patcher in (("latents", model), ("latents with a LoRA", changed)):
            found[name] = comfy.sample.sample(patcher, noise, STEPS, SCALE, "euler", "normal", *texts, latent, disable_pbar=True, seed=SEED)
        found["picture"] = vae.decode(found["latents"])
        return {name: value.detach().to("cpu", torch.float32).contiguous().clone() for name, value in found.items()}
    finally:
        devices.vram_state = state


def main() -> None:
    """Compute on the CPU and write the results."""
    checkpoint, lora, out = sys.argv[1:]
    sys.path.insert(0, str(ROOT))
    sys.argv = [sys.argv[0], "--cpu", "--no-ram-model-cache"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch
    from safetensors.torch import save_file

    from comfy.cli_args import args

    vars(args).update(FLAGS)
    with torch.inference_mode():
        save_file(outputs(checkpoint, lora, None), out)


if __name__ == "__main__":
    main()
