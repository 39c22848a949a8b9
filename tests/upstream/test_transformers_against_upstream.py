"""Transformer models give upstream's latents: same files, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_transformers_against_upstream.py
"""

import flux_loras
import torch
from both_trees import against_upstream, results_of_both
from safetensors.torch import save_file
from transformer_files import flux_file

BOUND = 1e-3
LORAS = ("kohya", "plain", "diffusers", "onetrainer", "lycoris", "control")

pytestmark = against_upstream(900)


class Numbers:
    """Random tensors, one after the other."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(7)

    def __call__(self, *shape):
        return torch.randn(shape, generator=self.generator)


def flux_cases(folder) -> dict:
    """Every kind of Flux.1, Kontext's ways to lay pictures, odd sides with guidance by two prompts, and LoRA files."""
    numbers = Numbers()
    dev = flux_file(folder / "dev.safetensors")

    def case(model=dev, sides=(10, 14), batch=1, latent=None, **options):
        positive = [[numbers(1, 11, 64), {"pooled_output": numbers(1, 32), **options}]]
        latent = torch.zeros(batch, 16, *sides) if latent is None else latent
        return {"model": model, "positive": positive, "noise": numbers(batch, 16, *sides), "latent": latent}

    edges, mask = {"concat_latent_image": numbers(1, 16, 10, 14)}, {"concat_mask": (numbers(1, 1, 80, 112) > 0).float()}
    references = [numbers(1, 16, 8, 12), numbers(1, 16, 12, 6)]
    cases = {
        "dev": case(guidance=2.5),
        "schnell": case(flux_file(folder / "schnell.safetensors", 1, guidance=False)),
        "fill": case(flux_file(folder / "fill.safetensors", 2, in_channels=96), **edges, **mask),
        "edges": case(flux_file(folder / "edges.safetensors", 3, in_channels=32), **edges),
        "odd sides, two prompts": case(sides=(9, 13), batch=2, latent=numbers(2, 16, 9, 13))
        | {"negative": [[numbers(1, 11, 64), {"pooled_output": numbers(1, 32), "guidance": None}]], "cfg": 2.0, "denoise": 0.5},
        "bf16": case() | {"model_options": {"dtype": torch.bfloat16}},
    }
    for method in ("offset", "index", "uxo"):
        cases[f"kontext, {method}"] = case(reference_latents=references, reference_latents_method=method)
    cases["without LoRA"] = case(**edges)
    for name in LORAS:
        save_file(getattr(flux_loras, name)(), folder / f"{name}.safetensors")
        cases[f"LoRA: {name}"] = cases["without LoRA"] | {"lora": str(folder / f"{name}.safetensors"), "strength": 0.7}
    return cases


def test_latents_are_upstreams(tmp_path):
    cases_file = tmp_path / "cases.pt"
    torch.save(flux_cases(tmp_path), cases_file)
    ours, theirs = results_of_both("transformer_runs.py", tmp_path, [cases_file])
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:28} {difference:.1e}")
    without = ours["without LoRA"]
    assert not [name for name, latent in ours.items() if name.startswith("LoRA") and (latent - without).norm() < 0.01 * without.norm()]
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
