"""Stable Video Diffusion: what its files are told by, its network and autoencoder against diffusers', what it is conditioned by."""

import dataclasses

import pytest
import torch
from svd_files import SEEN, SMALL, SMALL_VAE, VECTOR, frames_vae_tensors, svd_file, svd_tensors, unet_tensors

import comfy.latent_formats
import comfy.sample
import comfy.sd
import comfy.supported_models
from comfy.cldm.cldm import ControlNet
from comfy.families.diffusers_names import unet_names, vae_names
from comfy.families.model_errors import ModelFileError
from comfy.families.sd_unet_config import read_unet_config
from comfy.images.svd_vae import FramesAutoencoder, plan_svd_vae
from comfy.ldm.modules import attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.modules.diffusionmodules.unet_layers import VideoResBlock
from comfy.ldm.modules.diffusionmodules.util import AlphaBlender
from comfy.ldm.modules.video_attention import SpatialVideoTransformer
from comfy.svd_model import SVD_img2vid
from comfy_extras import nodes_video_model as nodes

FRAMES = 3
RESIDUAL = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj"}
RESIDUAL |= {"out_layers.0": "norm2", "out_layers.3": "conv2"}
OVER_FRAMES = {"time_stack.": "temporal_transformer_blocks.", "embed.0.": "embed.linear_1.", "embed.2.": "embed.linear_2."}


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return svd_file(tmp_path_factory.mktemp("models") / "svd.safetensors")


def network(seed=0):
    made = UNetModel(**SMALL.as_dict())
    made.load_weights(unet_tensors(seed))
    return made


def inputs(videos=1):
    count = videos * FRAMES
    given = {"x": numbers(count, 8, 4, 6, seed=1), "timesteps": torch.full((count,), 1.5), "context": numbers(videos, 1, SEEN, seed=2)}
    given["context"] = given["context"].repeat_interleave(FRAMES, dim=0)
    return {**given, "y": numbers(videos, VECTOR, seed=3).repeat_interleave(FRAMES, dim=0), "num_video_frames": FRAMES}


def in_diffusers_names():
    """The small network as diffusers names it: what goes over frames stands beside what does not."""
    own, found = unet_tensors(), {}
    spatial = unet_names(dataclasses.replace(SMALL, is_video=False))
    homes = {}  # of layers by their published names
    for mark, there in ((".in_layers.0.weight", ".norm1.weight"), (".proj_in.weight", ".proj_in.weight")):
        homes |= {name.removesuffix(mark): other.removesuffix(there) for name, other in spatial.items() if name.endswith(mark)}
    for name, value in own.items():
        if name in spatial:
            there = spatial[name]
            residual = next((home for home in homes.values() if ".resnets." in home and there.startswith(f"{home}.")), None)
            found[there if residual is None else there.replace(residual, f"{residual}.spatial_res_block", 1)] = value
            continue
        home = next(home for home in homes if name.startswith(f"{home}.time_"))
        rest, there = name.removeprefix(f"{home}."), homes[home]
        if ".resnets." in there and rest.startswith("time_stack."):
            layer, _, leaf = rest.removeprefix("time_stack.").rpartition(".")
            rest = f"temporal_res_block.{RESIDUAL[layer]}.{leaf}"
        for theirs, here in OVER_FRAMES.items():
            rest = rest.replace(theirs, here)
        found[f"{there}.{rest}"] = value
    return found


def test_it_computes_what_diffusers_computes():
    from diffusers import UNetSpatioTemporalConditionModel

    sizes = {"in_channels": 8, "out_channels": 4, "block_out_channels": (64, 128), "layers_per_block": 1, "num_attention_heads": (1, 2)}
    down, up = ("CrossAttnDownBlockSpatioTemporal",) * 2, ("CrossAttnUpBlockSpatioTemporal",) * 2
    twin = UNetSpatioTemporalConditionModel(**sizes, down_block_types=down, up_block_types=up, cross_attention_dim=SEEN).eval()
    twin.load_state_dict(in_diffusers_names())
    given, ids = inputs(2), torch.tensor([[5.0, 127.0, 0.0], [9.0, 30.0, 0.1]])
    vector = twin.add_time_proj(ids.flatten()).reshape(2, -1)
    frames = given["x"].unflatten(0, (2, FRAMES))
    expected = twin(frames, torch.tensor(1.5), given["context"][::FRAMES], ids, return_dict=False)[0].flatten(0, 1)
    made = network()(**{**given, "y": vector.repeat_interleave(FRAMES, dim=0)})
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=3e-4)


def test_videos_of_a_batch_are_apart_and_pictures_have_no_time():
    made = network()
    both, given = made(**inputs(2)), inputs(2)
    apart = {name: value[FRAMES:] if torch.is_tensor(value) else value for name, value in given.items()}
    torch.testing.assert_close(made(**apart), both[FRAMES:], rtol=1e-4, atol=1e-5)
    alone = made(**inputs(), image_only_indicator=torch.ones(1, FRAMES))
    changed = inputs()
    changed["x"][1:] += 1.0
    torch.testing.assert_close(made(**changed, image_only_indicator=torch.ones(1, FRAMES))[:1], alone[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made(**changed)[:1], made(**inputs())[:1], rtol=1e-3)


def test_the_sizes_are_read_off_the_tensors():
    shapes = {f"p.{name}": tuple(value.shape) for name, value in unet_tensors().items()}
    config = read_unet_config(shapes, "p.")
    assert config == SMALL and config.as_dict()["use_temporal_resblock"] is True
    assert read_unet_config({name: shape for name, shape in shapes.items() if ".time_stack.0.attn2." not in name}, "p.") is None
    with pytest.raises(ValueError, match=r"not supported here without .*video_kernel_size"):
        UNetModel(**{name: value for name, value in SMALL.as_dict().items() if name != "video_kernel_size"})
    with pytest.raises(ValueError, match="use_temporal_attention=True is not supported"):
        ControlNet(**{**SMALL.as_dict(), "hint_channels": 3})
    with pytest.raises(ValueError, match="merge_strategy='fixed'"):
        UNetModel(**{**SMALL.as_dict(), "merge_strategy": "fixed"})


def test_layers_have_comfyuis_names_and_ways_to_mix():
    assert attention.SpatialVideoTransformer is SpatialVideoTransformer
    layers = list(network().modules())
    assert {VideoResBlock, SpatialVideoTransformer} <= {type(layer) for layer in layers}
    one, two = torch.ones(2, 3), torch.zeros(2, 3)
    for kind, share, mixed in (("fixed", 0.25, 0.25), ("learned", 0.0, 0.5)):
        assert AlphaBlender(share, kind)(one, two).unique().tolist() == [mixed]
    with pytest.raises(ValueError, match="merge strategy"):
        AlphaBlender(0.5, "other")


def test_a_checkpoint_holds_a_network_an_image_encoder_and_an_autoencoder(path, monkeypatch):
    monkeypatch.setattr(nodes.folder_paths, "get_full_path_or_raise", lambda *_: path)
    model, eyes, vae = nodes.ImageOnlyCheckpointLoader().load_checkpoint("svd.safetensors")
    assert type(model.model) is SVD_img2vid and isinstance(model.model.model_config, comfy.supported_models.SVD_img2vid)
    assert type(vae.first_stage_model) is FramesAutoencoder and model.model.model_sampling.sigma_max.item() == pytest.approx(700.0)
    picture = torch.rand(1, 40, 50, 3, generator=torch.Generator().manual_seed(2))
    sizes = {"width": 64, "height": 48, "video_frames": FRAMES, "motion_bucket_id": 30, "fps": 9}
    positive, negative, latent = nodes.SVD_img2vid_Conditioning().encode(eyes, picture, vae, **sizes, augmentation_level=0.0)
    assert positive[0][0].shape == (1, 1, SEEN) and latent["samples"].shape == (FRAMES, 4, 6, 8)
    assert negative[0][0].count_nonzero() == negative[0][1]["concat_latent_image"].count_nonzero() == 0
    noisy = nodes.SVD_img2vid_Conditioning().encode(eyes, picture, vae, **sizes, augmentation_level=0.5)[0]
    assert not torch.allclose(noisy[0][1]["concat_latent_image"], positive[0][1]["concat_latent_image"]) and noisy[0][1]["fps"] == 9
    guided, noise = nodes.VideoLinearCFGGuidance().patch(model, 1.0)[0], numbers(FRAMES, 4, 6, 8)
    done = comfy.sample.sample(guided, noise, 1, 2.5, "euler", "karras", positive, negative, latent["samples"], disable_pbar=True, seed=1)
    video = vae.decode(done)
    assert done.isfinite().all() and video.shape == (FRAMES, 48, 64, 3) and video.min() >= 0 and video.max() <= 1


def test_conditioning_is_what_the_network_takes():
    model = comfy.sd.load_diffusion_model_state_dict(unet_tensors(), model_options={"dtype": torch.float32}).model
    latent = numbers(1, 4, 12, 16)
    given = {"noise": numbers(FRAMES, 4, 6, 8), "device": torch.device("cpu"), "cross_attn": numbers(1, 1, SEEN)}
    plain = model.extra_conds(**given)
    assert plain.keys() == {"c_concat", "c_crossattn", "y", "num_video_frames"} and plain["num_video_frames"].cond == FRAMES
    assert plain["c_concat"].cond.count_nonzero() == 0 and plain["y"].cond.shape == (1, VECTOR)
    told = model.extra_conds(**given, fps=9, concat_latent_image=latent, time_conditioning=numbers(1, 1, SEEN))
    assert told["c_concat"].cond.shape == (FRAMES, 4, 6, 8) and "time_context" in told and not torch.equal(told["y"].cond, plain["y"].cond)


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.VAE(frames_vae_tensors())


def test_the_autoencoder_computes_what_diffusers_computes(vae):
    from diffusers import AutoencoderKLTemporalDecoder

    twin = AutoencoderKLTemporalDecoder(
        block_out_channels=SMALL_VAE.channels, layers_per_block=SMALL_VAE.num_res_blocks, down_block_types=("DownEncoderBlock2D",) * 4
    ).eval()
    twin.quant_conv = torch.nn.Identity()
    tensors, names = frames_vae_tensors(), vae_names(SMALL_VAE)
    encoder = {names[name]: value for name, value in tensors.items() if name.startswith("encoder.")}
    views = plan_svd_vae({name: tuple(value.shape) for name, value in tensors.items()}).parameters(tensors)
    decoder = {name: value for name, value in views.items() if name.startswith("decoder.")}
    both = {**encoder, **decoder}
    expected_shapes = {name: value.shape for name, value in twin.state_dict().items()}
    twin.load_state_dict({name: value.reshape(expected_shapes[name]) for name, value in both.items()})
    pictures, latents = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(1)), numbers(FRAMES, 4, 4, 6)
    torch.testing.assert_close(vae.encode(pictures), twin.encode(pictures.movedim(-1, 1) * 2 - 1).latent_dist.mode(), rtol=1e-3, atol=1e-4)
    decoded = (twin.decode(latents, num_frames=FRAMES).sample.clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(vae.decode(latents), decoded.movedim(1, -1), rtol=1e-3, atol=1e-3)


def test_frames_are_decoded_together(vae):
    latents = numbers(FRAMES, 4, 2, 3)
    changed = latents.clone()
    changed[2] += 1.0
    assert not torch.allclose(vae.decode(changed)[:2], vae.decode(latents)[:2], atol=1e-3)
    assert vae.decode_tiled(latents, tile_x=4, tile_y=4, overlap=1).shape == (FRAMES, 16, 24, 3)


def test_a_damaged_autoencoder_is_one_error():
    for missing in ("decoder.up.1.block.0.time_stack.in_layers.0.bias", "encoder.conv_in.weight", "encoder.down.0.block.1.conv1.weight"):
        with pytest.raises(ModelFileError, match="the VAE"):
            comfy.sd.VAE({name: value for name, value in frames_vae_tensors().items() if name != missing})


def test_a_saved_checkpoint_is_the_one_that_was_loaded(path, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    monkeypatch.setattr(nodes.folder_paths, "get_full_path_or_raise", lambda *_: path)
    monkeypatch.setattr(nodes.folder_paths, "get_output_directory", lambda: str(tmp_path))
    model, eyes, vae = nodes.ImageOnlyCheckpointLoader().load_checkpoint("svd.safetensors")
    nodes.ImageOnlyCheckpointSave().save(model, eyes, vae, "again")
    (saved,) = tmp_path.glob("again*.safetensors")
    tensors = load_file(saved)
    wrong = [name for name, value in svd_tensors().items() if not torch.equal(tensors[name], value.to(tensors[name].dtype))]
    assert not wrong and tensors.keys() >= svd_tensors().keys()
