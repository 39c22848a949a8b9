"""Models with model patches give upstream's latents: same files, pictures, conditioning, noise and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_model_patches_against_upstream.py
"""

import torch
from both_trees import against_upstream, results_of_both
from image_family_files import cosmos_config, cosmos_tensors
from safetensors.torch import save_file
from transformer_files import (
    STYLE_SIZES,
    Z_IMAGE_SIZES,
    blockwise_tensors,
    flux_config,
    flux_tensors,
    fun_tensors,
    lllite_tensors,
    lumina_tensors,
    qwen_image_config,
    qwen_image_tensors,
    style_tensors,
    z_image_config,
)

BOUND = 1e-3
SEEN = 0.003  # by how much of its length a patch changes the latent at least
SIZES = {
    "QwenImageBlockWiseControlNet": {"num_layers": 2, "dim": 64},
    "SigLIPMultiFeatProjModel": STYLE_SIZES,
    "ZImage_Control": Z_IMAGE_SIZES,
}

pytestmark = against_upstream(900)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picture(height, width, seed):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


def saved(folder, name, tensors, metadata=None):
    save_file(tensors, folder / f"{name}.safetensors", metadata)
    return str(folder / f"{name}.safetensors")


def qwen_cases(folder):
    """A plain one, one for masks, and a picture that does not fit the latent."""
    plain = {
        "family": "QwenImage",
        "config": qwen_image_config(),
        "tensors": qwen_image_tensors(),
        "positive": [[numbers(1, 5, 48, seed=1), {}]],
        "negative": [[numbers(1, 7, 48, seed=2), {}]],
        "cfg": 2.0,
    }
    plain |= {"noise": numbers(1, 16, 1, 10, 12, seed=3), "latent": torch.zeros(1, 16, 1, 10, 12)}
    node = {"node": "QwenImageDiffsynthControlnet", "latent_dim": 3, "patch": saved(folder, "blockwise", blockwise_tensors())}
    masked = saved(folder, "masked", blockwise_tensors(1, mask=True))
    mask = (numbers(1, 80, 96, seed=4) > 0).float()
    image = picture(80, 96, 5)
    return {
        "qwen": plain,
        "qwen, picture": plain | node | {"inputs": {"image": image, "strength": 0.8}},
        "qwen, other size": plain | node | {"inputs": {"image": picture(56, 120, 6), "strength": 1.0}},
        "qwen, mask": plain | node | {"patch": masked, "inputs": {"image": image, "strength": 1.0, "mask": mask}},
        "qwen, no mask": plain | node | {"patch": masked, "inputs": {"image": image, "strength": 1.0}},
    }


def z_image_cases(folder):
    """Each kind of Fun ControlNet, pictures to fill in, and sizes that differ."""
    config = z_image_config(depth=21)  # so that the last of three blocks runs too
    text = [[numbers(1, 9, 64, seed=1), {}]]
    plain = {"family": "ZImage", "config": config, "tensors": lumina_tensors(config), "positive": text, "negative": text, "cfg": 1.0}
    plain |= {"noise": numbers(1, 16, 10, 12, seed=3), "latent": torch.zeros(1, 16, 10, 12)}
    image, fill, mask = picture(80, 96, 5), picture(80, 96, 6), (numbers(1, 80, 96, seed=4) > 0).float()
    node = {"node": "ZImageFunControlnet", "latent_dim": 2}
    first = node | {"patch": saved(folder, "first", fun_tensors())}
    later = node | {"patch": saved(folder, "later", fun_tensors(1, blocks=15))}
    untrained = node | {"patch": saved(folder, "untrained", fun_tensors(2, blocks=15, untrained=True))}
    lite = node | {"patch": saved(folder, "lite", fun_tensors(3, blocks=3))}
    return {
        "z": plain,
        "z, first": plain | first | {"node": "QwenImageDiffsynthControlnet", "inputs": {"image": image, "strength": 0.7}},
        "z, other size": plain | first | {"inputs": {"image": picture(64, 64, 7), "strength": 1.0}},
        "z, later": plain | later | {"inputs": {"image": image, "strength": 1.0}},
        "z, fill": plain | later | {"inputs": {"inpaint_image": fill, "mask": mask, "strength": 1.0}},
        "z, both": plain | lite | {"inputs": {"image": image, "inpaint_image": fill, "mask": mask, "strength": 1.0}},
        "z, both, other sizes": plain | lite | {"inputs": {"image": picture(64, 64, 7), "inpaint_image": fill, "strength": 1.0}},
        "z, untrained": plain | untrained | {"inputs": {"image": image, "strength": 1.0}},
    }


def flux_cases(folder):
    """USO's style."""
    positive = [[numbers(1, 11, 64, seed=1), {"pooled_output": numbers(1, 32, seed=2), "guidance": 2.5}]]
    plain = {"family": "Flux", "config": flux_config(), "tensors": flux_tensors(), "positive": positive, "negative": positive, "cfg": 1.0}
    plain |= {"noise": numbers(1, 16, 10, 14, seed=3), "latent": torch.zeros(1, 16, 10, 14)}
    style = {
        "node": "USOStyleReference",
        "patch": saved(folder, "style", style_tensors()),
        "states": numbers(1, 27, 9, 24, seed=4),
        "inputs": {},
    }
    return {"flux": plain, "flux, style": plain | style}


def cosmos_cases(folder):
    """LLLite: a picture, one with a mask and without, a part of the sampling."""
    text = [[numbers(1, 9, 32, seed=1), {}]], [[numbers(1, 7, 32, seed=2), {}]]
    plain = {"family": "CosmosT2IPredict2", "config": cosmos_config(), "tensors": cosmos_tensors(), "cfg": 2.0}
    plain |= {"positive": text[0], "negative": text[1]}
    plain |= {"noise": numbers(2, 16, 1, 10, 12, seed=3), "latent": torch.zeros(2, 16, 1, 10, 12)}
    far = {"lllite.version": "2", "lllite.aspp_dilations": "1,2", "lllite.inpaint_masked_input": "true"}
    inputs = {"image": picture(56, 120, 6), "strength": 0.8, "start_percent": 0.0, "end_percent": 1.0}
    node = {"node": "AnimaLLLiteApply", "patch": saved(folder, "lllite", lllite_tensors(far=False)), "inputs": inputs}
    masked = node | {"patch": saved(folder, "lllite, mask", lllite_tensors(1, mask=True), far)}
    mask = (numbers(1, 56, 120, seed=4) > 0).float()
    return {
        "cosmos": plain,
        "cosmos, picture": plain | node,
        "cosmos, part": plain | node | {"inputs": {**inputs, "start_percent": 0.5}},
        "cosmos, mask": plain | masked | {"inputs": {**inputs, "mask": mask}},
        "cosmos, no mask": plain | masked,
    }


def test_latents_are_upstreams(tmp_path):
    cases = qwen_cases(tmp_path) | z_image_cases(tmp_path) | flux_cases(tmp_path) | cosmos_cases(tmp_path)
    torch.save({**cases, "sizes": SIZES}, tmp_path / "cases.pt")
    ours, theirs = results_of_both("model_patch_runs.py", tmp_path, [tmp_path / "cases.pt"])
    assert theirs.keys() == cases.keys()
    differences = {name: ((ours[name] - latent).norm() / latent.norm()).item() for name, latent in theirs.items()}
    for name, difference in differences.items():
        print(f"{name:28} {difference:.1e}")
    for name, case in cases.items():
        without = ours[name.partition(",")[0]]
        assert "patch" not in case or (ours[name] - without).norm() > SEEN * without.norm(), name
    assert not {name: value for name, value in differences.items() if not value <= BOUND}
