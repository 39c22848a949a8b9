"""Model patches: told by their tensors, read, applied, kept with the model, refused."""

import logging
from types import SimpleNamespace

import pytest
import torch
from image_family_files import cosmos_tensors
from quantised_files import quantised_model
from safetensors.torch import save_file
from transformer_files import (
    STYLE_SIZES,
    Autoencoder,
    blockwise_tensors,
    flux_tensors,
    fun_tensors,
    lllite_tensors,
    lumina_tensors,
    qwen_image_tensors,
    style_tensors,
    z_image_config,
)

import comfy.sd
from comfy.control.model_patches import LAYERS
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.ldm.flux.siglip_style import LEVELS, SigLIPMultiFeatProjModel
from comfy.ldm.lumina.controlnet import ZImage_Control
from comfy.ldm.qwen_image.blockwise import QwenImageBlockWiseControlNet
from comfy.loading.model_patch import load_model_patch
from comfy_extras import nodes_model_patch


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loaded(folder, tensors, name="patch", metadata=None):
    save_file(tensors, folder / f"{name}.safetensors", metadata)
    return load_model_patch(str(folder / f"{name}.safetensors"))


def model_of(folder, tensors, name):
    save_file(tensors, folder / f"{name}.safetensors")
    return comfy.sd.load_diffusion_model(str(folder / f"{name}.safetensors"))


def options_of(model):
    return dict(model.model_options["transformer_options"]["patches"])


def seen_by_siglip(layers=27):
    states = numbers(1, layers, STYLE_SIZES["siglip_token_nums"], STYLE_SIZES["siglip_token_dims"], seed=3)
    return SimpleNamespace(all_hidden_states=states, penultimate_hidden_states=states[:, -2])


def test_kinds_and_sizes_are_told_by_the_tensors(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        plain, masked = (loaded(tmp_path, blockwise_tensors(mask=mask), f"blockwise {mask}").model for mask in (False, True))
        style = loaded(tmp_path, style_tensors(), "style").model
        kinds = {
            (blocks, zeros): loaded(tmp_path, fun_tensors(0, blocks, zeros), f"fun {blocks} {zeros}").model
            for blocks, zeros in ((6, False), (3, False), (15, False), (15, True))
        }
    assert not caplog.records, "every tensor is used"
    assert isinstance(plain, QwenImageBlockWiseControlNet) and (plain.dim, len(plain.controlnet_blocks)) == (64, 2)
    assert (plain.additional_in_dim, masked.additional_in_dim) == (0, 4) and plain.source_name.endswith("blockwise False.safetensors")
    assert isinstance(style, SigLIPMultiFeatProjModel) and {
        name: getattr(style, name) for name in STYLE_SIZES if name != "style_token_nums"
    } == {name: size for name, size in STYLE_SIZES.items() if name != "style_token_nums"}
    found = {key: (one.n_control_layers, one.additional_in_dim, one.refiner_control, one.broken) for key, one in kinds.items()}
    assert all(isinstance(one, ZImage_Control) for one in kinds.values())
    assert found == {
        (6, False): (6, 0, False, False),
        (3, False): (3, 17, True, False),
        (15, False): (15, 17, True, False),
        (15, True): (15, 17, True, True),
    }


def test_values_are_the_files(tmp_path):
    tensors = fun_tensors()
    network = loaded(tmp_path, tensors).model
    own = network.state_dict()
    block = "control_layers.1.attention"
    assert torch.equal(own[f"{block}.qkv.weight"], torch.cat([tensors[f"{block}.to_{letter}.weight"] for letter in "qkv"]))
    assert torch.equal(own[f"{block}.out.weight"], tensors[f"{block}.to_out.0.weight"])
    assert torch.equal(own[f"{block}.k_norm.weight"], tensors[f"{block}.norm_k.weight"])
    blocks = blockwise_tensors()
    assert all(torch.equal(value, blocks[name]) for name, value in loaded(tmp_path, blocks, "other").model.state_dict().items())


def test_the_style_is_what_its_definition_says(tmp_path):
    tensors = style_tensors()
    states = numbers(3, 1, 9, 24, seed=3)
    expected = []
    for level, given in zip(LEVELS, (states[2], states[1], states[0])):
        own = {name.removeprefix(f"feature_embedder.{level}_"): value for name, value in tensors.items() if f".{level}_" in name}
        x = torch.nn.functional.silu(given.transpose(1, 2) @ own["embedding_linear.0.weight"].T + own["embedding_linear.0.bias"]).transpose(
            1, 2
        )
        x = torch.nn.functional.layer_norm(x, (24,), own["layer_norm.weight"], own["layer_norm.bias"])
        expected.append(x @ own["projection.weight"].T + own["projection.bias"])
    torch.testing.assert_close(loaded(tmp_path, tensors).model(states), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_a_patch_goes_with_its_model_and_changes_its_result(tmp_path):
    patch = loaded(tmp_path, blockwise_tensors())
    model = model_of(tmp_path, qwen_image_tensors(), "qwen")
    image = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(1))
    node = nodes_model_patch.QwenImageDiffsynthControlnet()
    (patched,) = node.diffsynth_controlnet(model, patch, Autoencoder(3), image, 0.5)
    assert patched.model_patches_models() == [patch] and model.model_patches_models() == []
    given = {"x": numbers(2, 16, 1, 6, 8), "timestep": torch.tensor([0.6, 0.6]), "context": numbers(2, 5, 48, seed=2)}
    network = model.model.diffusion_model
    without = network(**given)
    (none,) = node.diffsynth_controlnet(model, patch, Autoencoder(3), image, 0.0)
    results = [network(**given, transformer_options={"patches": options_of(one)}) for one in (patched, patched, none)]
    assert torch.equal(results[0], results[1]) and not torch.allclose(results[0], without, rtol=1e-2)
    torch.testing.assert_close(results[2], without)


def test_an_interrupted_run_leaves_nothing_for_the_next(tmp_path):
    patch = loaded(tmp_path, fun_tensors(blocks=3))
    model = model_of(tmp_path, lumina_tensors(z_image_config()), "z")
    image = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(1))
    (patched,) = nodes_model_patch.ZImageFunControlnet().diffsynth_controlnet(model, patch, Autoencoder(2), image)
    given = {"timesteps": torch.tensor([0.6]), "context": numbers(1, 5, 64, seed=2)}
    latents = numbers(1, 16, 6, 8), numbers(1, 16, 8, 6, seed=5)

    def run(x):
        return model.model.diffusion_model(x, **given, transformer_options={"patches": options_of(patched)})

    first = run(latents[0])  # a network of fewer than 30 layers leaves blocks of the ControlNet over
    assert run(latents[1]).shape == latents[1].shape and torch.equal(run(latents[0]), first)
    assert LAYERS == 30


def test_the_style_stands_before_the_text_of_each_of_a_batch(tmp_path):
    patch = loaded(tmp_path, style_tensors())
    model = model_of(tmp_path, flux_tensors(), "flux")
    (patched,) = nodes_model_patch.USOStyleReference().apply_patch(model, patch, seen_by_siglip())
    (apply,) = options_of(patched)["post_input"]
    text, places = numbers(2, 5, 256), torch.ones(2, 5, 3)
    out = apply({"img": None, "txt": text, "img_ids": None, "txt_ids": places})
    assert (
        out["txt"].shape == (2, 17, 256) and torch.equal(out["txt"][:, 12:], text) and torch.equal(out["txt"][0, :12], out["txt"][1, :12])
    )
    assert out["txt_ids"].shape == (2, 17, 3) and out["txt_ids"][:, :12].eq(0).all() and out["txt_ids"][:, 12:].eq(1).all()


def test_lllite_follows_a_picture_for_a_part_of_the_sampling(tmp_path):
    said = {"lllite.version": "2", "lllite.aspp_dilations": "1,2", "lllite.inpaint_masked_input": "true"}
    plain, masked = loaded(tmp_path, lllite_tensors(far=False)), loaded(tmp_path, lllite_tensors(mask=True), "masked", said)
    assert (plain.model.block_count, plain.model.model_dim, len(plain.model.module_names)) == (2, 256, 6)
    assert masked.model.inpaint_masked_input and masked.model.cond_in_channels == 4 and plain.model.lllite_conditioning1.aspp is None
    model = model_of(tmp_path, cosmos_tensors(), "cosmos")
    image, mask = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(1)), torch.ones(1, 48, 64)
    given = {"x": numbers(2, 16, 1, 6, 8), "timesteps": torch.tensor([0.6, 0.6]), "context": numbers(2, 5, 32, seed=2)}

    def run(patch, sigma=0.5, strength=1.0, x=given["x"], **more):
        (patched,) = nodes_model_patch.AnimaLLLiteApply().apply_patch(model, patch, image, strength, 0.4, 1.0, **more)
        options = {"patches": options_of(patched), "sigmas": torch.tensor([sigma])}
        return model.model.diffusion_model(**{**given, "x": x}, transformer_options=options)

    without = model.model.diffusion_model(**given)
    followed = run(plain)
    assert not torch.allclose(followed, without, rtol=1e-2) and torch.equal(run(plain, mask=mask), followed)
    assert torch.equal(run(plain, sigma=1000.0), without) and torch.equal(run(plain, strength=0.0), without)
    assert not torch.allclose(run(masked, mask=mask), run(masked), rtol=1e-2)
    with pytest.raises(ValueError, match="2 frames"):
        run(plain, x=numbers(1, 16, 2, 6, 8))
    with pytest.raises(ValueError, match="3 masks for 1 pictures"):
        run(masked, mask=torch.ones(3, 48, 64))
    with pytest.raises(IncompleteModelError, match="old.safetensors.*version 1"):
        loaded(tmp_path, lllite_tensors(), "old", {"lllite.version": "1"})
    odd = {name.replace("mlp_layer1", "mlp_layer2"): value for name, value in lllite_tensors(far=False).items()}
    with pytest.raises(IncompleteModelError, match="knows no part lllite_dit_blocks_0_mlp_layer2"):
        loaded(tmp_path, odd, "odd")


def test_wrong_pairs_name_both_files(tmp_path):
    flux, qwen = model_of(tmp_path, flux_tensors(), "flux"), model_of(tmp_path, qwen_image_tensors(), "qwen")
    deep, wide = model_of(tmp_path, qwen_image_tensors(depth=3), "deep"), model_of(tmp_path, qwen_image_tensors(width=128), "wide")
    z = model_of(tmp_path, lumina_tensors(z_image_config()), "z")
    blocks, fun, style = (
        loaded(tmp_path, tensors, name)
        for tensors, name in ((blockwise_tensors(), "blocks"), (fun_tensors(), "fun"), (style_tensors(), "style"))
    )
    control, reference = nodes_model_patch.ZImageFunControlnet().diffsynth_controlnet, nodes_model_patch.USOStyleReference().apply_patch
    image, lite = torch.zeros(1, 48, 64, 3), loaded(tmp_path, lllite_tensors(far=False), "lllite")
    follow = nodes_model_patch.AnimaLLLiteApply().apply_patch
    wrong = [
        (r"blocks.safetensors changes a QwenImage of .*64.*flux.safetensors holds a Flux$", control, (flux, blocks, Autoencoder(3), image)),
        (r"blocks.safetensors .*64.*wide.safetensors holds a QwenImage of .*128", control, (wide, blocks, Autoencoder(3), image)),
        (r"blocks.safetensors is for 2 blocks; .*deep.safetensors has 3", control, (deep, blocks, Autoencoder(3), image)),
        (r"fun.safetensors changes a Lumina2.*qwen.safetensors holds a QwenImage", control, (qwen, fun, Autoencoder(2), image)),
        (r"style.safetensors changes a Flux of .*z.safetensors holds a Lumina2", reference, (z, style, seen_by_siglip())),
        (r"blocks.safetensors looks at latents of 16 .*the VAE vae.safetensors makes", control, (qwen, blocks, Autoencoder(2), image)),
        (r"fun.safetensors looks at latents of 16 .*the VAE vae.safetensors makes", control, (z, fun, Autoencoder(3), image)),
        (r"style.safetensors is no ControlNet", control, (flux, style, Autoencoder(2), image)),
        (r"fun.safetensors is no style projector", reference, (flux, fun, seen_by_siglip())),
        (r"style.safetensors needs a SigLIP.*20 layers", reference, (flux, style, seen_by_siglip(12))),
        (r"style.safetensors is no LLLite", follow, (flux, style, image, 1.0, 0.0, 1.0)),
        (r"lllite.safetensors changes a Anima or CosmosPredict2.*flux.safetensors", follow, (flux, lite, image, 1.0, 0.0, 1.0)),
        (r"blocks.safetensors looks at an image; connect", control, (qwen, blocks, Autoencoder(3))),
        (r"fun.safetensors looks at an image; connect", control, (z, fun, Autoencoder(2), None, 1.0, image)),
    ]
    for text, node, given in wrong:
        with pytest.raises(ValueError, match=text):
            node(*given)


def test_other_and_incomplete_files_are_refused(tmp_path):
    with pytest.raises(UnknownModelError, match=r"flux.safetensors holds no model patch; supported: DiffSynth"):
        loaded(tmp_path, flux_tensors(), "flux")
    for tensors, lost in (
        (blockwise_tensors(), "controlnet_blocks.1.input_proj.bias"),
        (blockwise_tensors(), "img_in.weight"),
        (fun_tensors(), "control_layers.0.attention.to_k.weight"),
        (style_tensors(), "feature_embedder.low_projection.bias"),
    ):
        del tensors[lost]
        with pytest.raises(IncompleteModelError, match=r"part.safetensors"):
            loaded(tmp_path, tensors, "part")


@pytest.mark.parametrize("kind", ["fp8", "int8 rows"])
@pytest.mark.parametrize("make", [blockwise_tensors, fun_tensors])
def test_quantised_files_mean_what_they_say(tmp_path, make, kind):
    stored, values, _ = quantised_model(kind, make(), prefix="control")
    network, plain = loaded(tmp_path, stored, "stored").model, loaded(tmp_path, values, "values").model
    x, other = numbers(1, 6, network.dim), numbers(1, 6, network.dim, seed=1)
    if make is blockwise_tensors:
        assert network.controlnet_blocks[0].input_proj.quantised is not None
        found, expected = network.control_block(x, other, 1), plain.control_block(x, other, 1)
    else:
        turns, time = torch.eye(2).expand(1, 6, 1, 64, 2, 2), numbers(1, 256, seed=2)
        assert network.control_layers[0].before_proj.quantised is not None
        found, expected = (one.control(0, x, other, turns, time)[0] for one in (network, plain))
    assert ((found - expected).norm() / expected.norm()).item() < (0.05 if kind.startswith("int8") else 1e-3)
