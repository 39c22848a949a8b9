"""What patched models cost in a ComfyUI checkout, by its own code: run by ``benchmarks/patching.py --upstream`` in a process of its own.

    python benchmarks/patching_upstream.py CHECKOUT CHECKPOINT LORA

prints one JSON object: microseconds of clones and of attention replacements, seconds until the weights of a LoRA are in place, first and
again by a new node. Then it reads strengths, one a line, and answers each with the seconds until the weights are in place at that strength.
The loader node reads the LoRA's file once and keeps it, as it does between two prompts.
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


class LoraChanges:
    """Puts weights of the file *checkpoint* with those of the file *lora* in place."""

    def __init__(self, checkpoint: str, lora: str) -> None:
        import folder_paths
        import nodes
        from comfy import sd

        folder_paths.add_model_folder_path("loras", str(pathlib.Path(lora).parent))
        self._name = pathlib.Path(lora).name
        self._new_node: Callable[[], Any] = nodes.LoraLoader
        self._node = nodes.LoraLoader()
        self._model, self._clip, *_ = sd.load_checkpoint_guess_config(checkpoint, output_vae=False)

    def first_figures(self) -> dict[str, float]:
        """Seconds the first time, and by a new node, which reads the file again."""
        figures = {"LoRA, first (s)": self.place(0.8)}
        node, self._node = self._node, self._new_node()
        figures["LoRA, again by a new node (s)"] = self.place(0.7)
        self._node = node
        return figures

    def place(self, strength: float) -> float:
        """Seconds until the weights are in place at *strength*."""
        import torch

        from comfy import model_management

        started_s = time.perf_counter()
        with torch.inference_mode():
            changed, encoder = self._node.load_lora(self._model, self._clip, self._name, strength, strength)
            model_management.load_models_gpu([changed, encoder.patcher])
        seconds = time.perf_counter() - started_s
        del changed, encoder
        gc.collect()
        return seconds


def main() -> None:
    """Measure, print, and answer."""
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
    changes = LoraChanges(given.checkpoint, given.lora)
    print(json.dumps({**cloning(given.counts, given.replacements), **changes.first_figures()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(changes.place(float(line))), flush=True)


if __name__ == "__main__":
    main()
