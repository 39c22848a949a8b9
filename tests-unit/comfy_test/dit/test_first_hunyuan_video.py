"""HunyuanVideo 1: what its files are told by, its network, its hooks, what it is conditioned by, LoRA."""

import pytest
import torch
from hunyuan_files import POOLED, first_config, first_tensors
from transformer_files import network_of

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit import hunyuan_video
from comfy.dit.models.hunyuan_video import HunyuanVideo, HunyuanVideo15
from comfy.ldm.hunyuan_video import latents
from comfy.ldm.hunyuan_video.model import HunyuanVideo as Network
from comfy.ldm.hunyuan_video.names import parameter_name
from comfy.loading.lora_keys import model_lora_keys_unet

CONTEXT = 48


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def network():
    network = network_of(first_config())
    network.load_weights(first_tensors())
    return network


def inputs(size=(3, 4, 6), batch=1):
    given = {"x": numbers(batch, 16, *size, seed=1), "timestep": torch.full((batch,), 600.0), "guidance": torch.full((batch,), 6.0)}
    return {**given, "context": numbers(batch, 5, CONTEXT, seed=2), "y": numbers(batch, POOLED, seed=3)}


def loaded(**sizes):
    return comfy.sd.load_diffusion_model_state_dict(first_tensors(**sizes), model_options={"dtype": torch.float32}).model


@pytest.mark.parametrize(
    ("channels", "name", "keys"),
    [
        (16, "HunyuanVideo", ()),
        (33, "HunyuanVideoI2V", ("concat_image", "mask_inverted")),
        (32, "HunyuanVideoSkyreelsI2V", ("concat_image",)),
    ],
)
def test_networks_are_told_by_their_tensors(channels, name, keys):
    model = loaded(channels=channels)
    assert type(model) is getattr(comfy.model_base, name) and type(model.model_config) is getattr(comfy.supported_models, name)
    assert model.concat_keys == keys and model.model_sampling.shift == 7.0 and isinstance(model, HunyuanVideo)
    assert (
        type(model.diffusion_model) is Network
        and not isinstance(model, HunyuanVideo15)
        and isinstance(model.latent_format, comfy.latent_formats.HunyuanVideo)
    )


def test_the_latent_formats_are_comfyuis_names():
    assert comfy.latent_formats.HunyuanVideo is latents.HunyuanVideo and comfy.latent_formats.HunyuanVideo15 is latents.HunyuanVideo15
    for kind, channels in ((latents.HunyuanVideo, 16), (latents.HunyuanVideo15, 32)):
        made = kind()
        assert len(made.latent_rgb_factors) == made.latent_channels == channels and len(made.latent_rgb_factors_bias) == 3
    assert latents.HunyuanVideo().process_in(torch.ones(1)).item() == pytest.approx(0.476986)


def in_diffusers_names():
    """A small network as diffusers saves it."""
    own = {parameter_name(key): value for key, value in first_tensors().items()}
    sizes = {"width": 128, "blocks": 2, "refiner_blocks": 2, "single_blocks": 2}
    found = {}
    for name, place in hunyuan_video.first_diffusers_places(sizes).items():
        if place.key in own and not name.startswith("time_embed."):
            value = own[place.key]
            value = torch.cat(value.chunk(2)[::-1]) if place.swapped else value
            found[name] = (value[place.start : place.start + place.length] if place.length else value).clone()
    return found


def test_it_computes_what_diffusers_computes(network):
    from diffusers import HunyuanVideoTransformer3DModel

    sizes = {"num_attention_heads": 1, "attention_head_dim": 128, "num_layers": 2, "num_single_layers": 2}
    twin = HunyuanVideoTransformer3DModel(**sizes, text_embed_dim=CONTEXT, pooled_projection_dim=POOLED).eval()
    twin.load_state_dict(in_diffusers_names())
    given = inputs()
    texts = (given["context"], torch.ones(1, 5), given["y"])
    expected = twin(given["x"], given["timestep"], *texts, guidance=given["guidance"] * 1000, return_dict=False)[0]
    torch.testing.assert_close(network(**given), expected, rtol=1e-3, atol=3e-4)


def test_diffusers_files_are_the_same_model():
    model = comfy.sd.load_diffusion_model_state_dict(in_diffusers_names(), model_options={"dtype": torch.float32}).model
    own = {parameter_name(key): value for key, value in first_tensors().items()}
    assert type(model) is HunyuanVideo and all(torch.equal(value, own[name]) for name, value in model.diffusion_model.named_parameters())


def test_pictures_count_where_they_are_given_and_batches_are_their_entries(network):
    plain = network(**inputs())
    first, beside = network(**inputs(), guiding_frame_index=torch.zeros(1)), network(**inputs(), ref_latent=numbers(1, 16, 1, 4, 6))
    results = [plain, first, beside]
    assert not any(torch.allclose(one, other, rtol=1e-3) for number, one in enumerate(results) for other in results[:number])
    two = inputs(batch=2)
    both = network(**two, guiding_frame_index=torch.zeros(2))
    entries = [{name: value[number : number + 1] for name, value in two.items()} for number in (0, 1)]
    apart = [network(**entry, guiding_frame_index=torch.zeros(1)) for entry in entries]
    torch.testing.assert_close(both, torch.cat(apart), rtol=1e-4, atol=1e-5)
    odd = network(**{**inputs(), "x": numbers(1, 16, 3, 5, 7)})
    assert odd.shape == (1, 16, 3, 5, 7) and odd.isfinite().all()
    with pytest.raises(ValueError, match="pooled text"):
        network(**{**inputs(), "y": None})


def test_blocks_can_be_replaced_and_residuals_added(network):
    seen = []

    def replacement(args, extra):
        seen.append((sorted(args), args["transformer_options"]["block_type"], args["transformer_options"]["block_index"]))
        return extra["original_block"](args)

    names = {("double_block", 1): replacement, ("single_block", 1): replacement}
    assert torch.equal(network(**inputs()), network(**inputs(), transformer_options={"patches_replace": {"dit": names}}))
    assert [kind for _, *kind in seen] == [["double", 1], ["single", 1]]
    assert seen[1][0] == ["attention_mask", "img", "modulation_dims", "pe", "transformer_options", "vec"]
    for kind in ("input", "output"):
        controlled = network(**inputs(), control={kind: [None, torch.ones(1, 18, 128)]})
        assert not torch.allclose(controlled, network(**inputs()))
    assert torch.equal(network(**inputs()), network(**inputs(), control={}))


def test_conditioning_is_what_the_network_takes():
    model, pooled, latent = loaded(), numbers(1, POOLED), numbers(1, 16, 1, 4, 6)
    given = {"noise": numbers(1, 16, 3, 4, 6), "device": torch.device("cpu"), "cross_attn": numbers(1, 5, CONTEXT), "pooled_output": pooled}
    plain = model.extra_conds(**given)
    assert plain.keys() == {"c_crossattn", "y", "guidance"} and plain["y"].cond is pooled and plain["guidance"].cond.tolist() == [6.0]
    more = model.extra_conds(**given, attention_mask=torch.ones(1, 5), guiding_frame_index=0, ref_latent=latent, guidance=3.0)
    assert more["attention_mask"].cond.shape == (1, 5) and more["guiding_frame_index"].cond.tolist() == [0.0]
    torch.testing.assert_close(more["ref_latent"].cond, latent * 0.476986)
    assert model.scale_latent_inpaint(torch.tensor([0.7]), noise=latent * 2, latent_image=latent) is latent
    masked = loaded(channels=33).extra_conds(**given, concat_latent_image=latent, concat_mask=torch.ones(1, 1, 3, 4, 6))
    channels = masked["c_concat"].cond  # one frame of the picture, and nothing after it
    assert channels.shape == (1, 17, 3, 4, 6) and channels[:, 16].count_nonzero() == 0
    assert channels[:, :16].abs().mean(dim=(0, 1, 3, 4)).gt(0).tolist() == [True, False, False]


def test_lora_files_name_weights_in_the_usual_ways():
    names = model_lora_keys_unet(loaded(), {})
    assert names["transformer.double_blocks.1.img_attn_qkv"] == "diffusion_model.double_blocks.1.img_attn.qkv.weight"
    assert names["diffusion_model.single_blocks.1.modulation.linear"] == "diffusion_model.single_blocks.1.modulation.lin.weight"
