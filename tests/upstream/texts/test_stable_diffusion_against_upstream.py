"""Small UNets of Stable Diffusion 2, of its unCLIP models and of pruned SDXL, and CLIP-H, give upstream's results.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python
pytest tests/upstream/texts/test_stable_diffusion_against_upstream.py
"""

import dataclasses
import sys

import torch
from both_trees import PROJECT, against_upstream, results_of_both

sys.path.insert(0, str(PROJECT / "tests-unit" / "comfy_test"))

from image_family_files import numbers  # noqa: E402
from transformer_files import random_weight  # noqa: E402

import comfy.gligen  # noqa: E402
from comfy.families.clip_text_config import ClipTextConfig  # noqa: E402
from comfy.families.published_layout import clip_layout, unet_layout  # noqa: E402
from comfy.families.sd_unet_config import NO_MIDDLE, ONE_RESIDUAL, UNetConfig  # noqa: E402
from comfy.supported_models import PREDICTION_MARK  # noqa: E402

BOUND = 1e-3
WIDTH = 64  # heads have so many channels
TWO = UNetConfig(4, 4, WIDTH, (1, 2, 2, 2), (2,) * 4, (1,) * 6 + (0, 0), (1,) * 9 + (0,) * 3, 1, 48, True, None, -1, WIDTH)
SSD = UNetConfig(
    4, 4, WIDTH, (1, 2, 2), (2,) * 3, (0, 0, 2, 2, 4, 4), (0, 0, 0, 1, 1, 2, 1, 4, 4), ONE_RESIDUAL, 48, True, 1536 + 1280, -1, WIDTH
)
KOALA = dataclasses.replace(SSD, num_res_blocks=(1,) * 3, depths=(0, 2, 5), output_depths=(0, 0, 2, 2, 5, 5), middle_depth=NO_MIDDLE)

pytestmark = against_upstream(1200)


def tensors_of(layout):
    generator = torch.Generator().manual_seed(4)
    return {name: random_weight(name, shape, generator) for name, shape in layout.items()}


def sampled(family, config, values=None, gligen=None, **more):
    """A case of ``sampled``, the positive side with *gligen*."""
    tensors = tensors_of(unet_layout(config))
    if "mark" in more:
        tensors[PREDICTION_MARK] = tensors[PREDICTION_MARK] + more.pop("mark") * numbers(*tensors[PREDICTION_MARK].shape, seed=9)
    return {
        "run": "sampled",
        "family": family,
        "unet_config": config.as_dict(),
        "tensors": tensors,
        "positive": [(numbers(1, 7, 48, seed=1), {**(values or {}), **({} if gligen is None else {"gligen": gligen})})],
        "negative": [(numbers(1, 7, 48, seed=2), values or {})],
        "latent": torch.zeros(2, 4, 16, 8),
        "noise": numbers(2, 4, 16, 8, seed=3),
        **more,
    }


def gligen_tensors():
    """GLIGEN's layers for each transformer of ``TWO``, and its net of positions."""
    net = comfy.gligen.PositionNet(WIDTH, WIDTH)
    shapes = {f"position_net.{name}": value.shape for name, value in net.named_parameters()}
    for name, shape in unet_layout(TWO).items():
        if name.endswith("transformer_blocks.0.norm1.weight"):
            layers = comfy.gligen.GatedSelfAttentionDense(shape[0], WIDTH, shape[0] // WIDTH, WIDTH)
            block = name.removesuffix("norm1.weight")
            shapes |= {f"{block}fuser.{own}": value.shape for own, value in layers.named_parameters()}
    generator = torch.Generator().manual_seed(6)
    gates = ("alpha_attn", "alpha_dense")
    return {name: torch.tensor(0.7) if name.endswith(gates) else random_weight(name, shape, generator) for name, shape in shapes.items()}


def cases():
    pooled = {"pooled_output": numbers(1, 1280, seed=6)}
    seen = [(numbers(1, 1024, seed=7), 0.9, 0.3)]
    unclip = dataclasses.replace(TWO, adm_in_channels=2048)
    told = {"unclip_conditioning": [(numbers(1, 1280, seed=7), 0.8, 0.1)]}
    clip_h = ClipTextConfig(49408, 77, 64, 128, 13, 1, "gelu", 64)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 13, "num_attention_heads": 1, "projection_dim": 64}
    encoder = {"run": "encoded", "module": "sd2_clip", "name": "SD2ClipModel", "part": "clip_h", "key": "h", "sizes": sizes, "eyes": {}}
    return {
        "Stable Diffusion 2": sampled("SD20", TWO),
        "Stable Diffusion 2, velocity": sampled("SD20", TWO, mark=1.0),
        "Stable Diffusion 2, inpainting": sampled("SD20", dataclasses.replace(TWO, in_channels=9)),
        "Stable Diffusion 2 unCLIP": sampled("SD21UnclipH", unclip, {"unclip_conditioning": seen}),
        "Stable Diffusion 2 unCLIP, no picture": sampled("SD21UnclipH", unclip),
        "Stable Diffusion 2, GLIGEN": sampled("SD20", TWO, gligen=(gligen_tensors(), [(numbers(1, WIDTH, seed=5), 8, 4, 0, 4)])),
        "SSD-1B": sampled("SSD1B", SSD, pooled),
        "SSD-1B, a picture": sampled("SSD1B", SSD, {**pooled, **told}),
        "KOALA": sampled("KOALA_700M", KOALA, pooled),
        "CLIP-H": {**encoder, "tensors": tensors_of(clip_layout(clip_h)), "tokens": [[49406, 320, 1125, 49407, *[0] * 73]]},
    }


def test_every_case_gives_upstreams_result(tmp_path):
    torch.save(cases(), tmp_path / "cases.pt")
    ours, theirs = results_of_both("small_model_runs.py", tmp_path, [tmp_path / "cases.pt"])
    differences = {}
    for case, expected in theirs.items():
        pairs = list(zip(*(one if isinstance(one, list) else [one] for one in (ours[case], expected)), strict=True))
        differences[case] = max(((own - other).norm() / other.norm()).item() for own, other in pairs)
        print(f"{case:40} {differences[case]:.1e}")
    assert ours.keys() == theirs.keys() and not {case: value for case, value in differences.items() if not value <= BOUND}
    plain = ours["Stable Diffusion 2"]
    assert (ours["Stable Diffusion 2, velocity"] - plain).norm() > 0.1 * plain.norm()
    assert not torch.allclose(ours["Stable Diffusion 2, GLIGEN"], plain, rtol=0.01)
    assert not torch.allclose(ours["SSD-1B"], ours["SSD-1B, a picture"], rtol=0.01)
