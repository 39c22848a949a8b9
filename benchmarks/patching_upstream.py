"""What patched models cost in a ComfyUI checkout, by its own code: run by ``benchmarks/patching.py --upstream`` in a process of its own.

    python benchmarks/patching_upstream.py CHECKOUT CHECKPOINT LORA

prints one JSON object: microseconds of clones and of attention replacements, seconds until the weights of a LoRA are in place, first and at
another strength. The loader node reads the LoRA's file once and keeps it, as it does between two prompts.
"""

import argparse
import gc
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any


def fastest_us(action: Callable[[], Any], tries: int) -> float:
    """Microseconds of the fastest of *tries* calls."""
    best_s = float("inf")
    for _ in range(tries):
        started_s = time.perf_counter()
        action()
        best_s = min(best_s, time.perf_counter() - started_s)
    return best_s * 1e6


def cloning(counts: list[int], replacements: int) -> dict[str, float]:
    """Microseconds of a clone by number of patched weights, and of attention replacements on a clone."""
    import torch

    from comfy.model_patcher import ModelPatcher

    figures, host = {}, torch.device("cpu")
    for count in counts:
        module = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1), requires_grad=False) for _ in range(count)])
        patcher = ModelPatcher(module, host, host)
        patcher.add_patches({str(index): (torch.zeros(1),) for index in range(count)})
        figures[f"clone, {count} patched weights (us)"] = fastest_us(patcher.clone, 50)

    def replacing() -> None:
        clone = plain.clone()
        for number in range(replacements):
            clone.set_model_attn2_replace(fastest_us, "input", number)

    plain = ModelPatcher(torch.nn.ParameterList(), host, host)
    figures[f"{replacements} attention replacements (us)"] = fastest_us(replacing, 50) - fastest_us(plain.clone, 50)
    return figures


def lora_changes(checkpoint: str, lora: str) -> dict[str, float]:
    """Seconds until the weights of *checkpoint* with *lora* are in place: first, again by a new node, at another strength."""
    import torch

    import folder_paths
    import nodes
    from comfy import model_management, sd

    folder_paths.add_model_folder_path("loras", str(pathlib.Path(lora).parent))
    model, clip, *_ = sd.load_checkpoint_guess_config(checkpoint, output_vae=False)

    def place(loader: Any, strength: float) -> float:
        started_s = time.perf_counter()
        with torch.inference_mode():
            changed, encoder = loader.load_lora(model, clip, pathlib.Path(lora).name, strength, strength)
            model_management.load_models_gpu([changed, encoder.patcher])
        seconds = time.perf_counter() - started_s
        del changed, encoder
        gc.collect()
        return seconds

    loader = nodes.LoraLoader()
    figures = {"LoRA, first (s)": place(loader, 0.8)}
    figures["LoRA, other strength (s)"] = min(place(loader, strength) for strength in (0.5, 0.6, 0.7))
    figures["LoRA, again by a new node (s)"] = place(nodes.LoraLoader(), 0.7)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout")
    parser.add_argument("checkpoint")
    parser.add_argument("lora")
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 686, 10_000])
    parser.add_argument("--replacements", type=int, default=70)
    given = parser.parse_args()
    sys.path.insert(0, given.checkout)
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    print(json.dumps({**cloning(given.counts, given.replacements), **lora_changes(given.checkpoint, given.lora)}))


if __name__ == "__main__":
    main()
