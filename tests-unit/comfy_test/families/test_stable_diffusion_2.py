"""Stable Diffusion 2 and unCLIP: telling whole checkpoints, what is predicted, pictures as conditioning."""

import dataclasses
import types

import pytest
import safetensors.torch
import torch
from test_clip_vision import SIZES, open_clip
from transformer_files import random_weight
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import comfy.sample
import comfy.sd
from benchmarks.make_checkpoint import UNETS
from comfy import model_base, model_detection, supported_models
from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.published_layout import open_clip_layout, unet_layout, vae_layout
from comfy.families.sd_unet_config import NO_MIDDLE, ONE_RESIDUAL, UNetConfig, read_unet_config, unet_config_from_dict
from comfy.ldm.modules.encoders.noise_aug_modules import USUAL_SCHEDULE, CLIPEmbeddingNoiseAugmentation, unclip_adm
from comfy_extras import core_conditioning, core_loaders

TWO = UNetConfig(4, 4, 320, (1, 2, 4, 4), (2,) * 4, (1,) * 6 + (0, 0), (1,) * 9 + (0,) * 3, 1, 1024, True, None, -1, 64)
SMALL = dataclasses.replace(TWO, model_channels=64, channel_mult=(1, 1, 2, 2), context_dim=64)
XL = UNETS["sdxl"]
PRUNED = {
    "SSD1B": dataclasses.replace(XL, depths=(0, 0, 2, 2, 4, 4), output_depths=(0, 0, 0, 1, 1, 2, 10, 4, 4), middle_depth=ONE_RESIDUAL),
    "Segmind_Vega": dataclasses.replace(
        XL, depths=(0, 0, 1, 1, 2, 2), output_depths=(0, 0, 0, 1, 1, 1, 2, 2, 2), middle_depth=ONE_RESIDUAL
    ),
    "KOALA_700M": dataclasses.replace(
        XL, num_res_blocks=(1,) * 3, depths=(0, 2, 5), output_depths=(0, 0, 2, 2, 5, 5), middle_depth=NO_MIDDLE
    ),
    "KOALA_1B": dataclasses.replace(XL, num_res_blocks=(1,) * 3, depths=(0, 2, 6), output_depths=(0, 0, 2, 2, 6, 6), middle_depth=6),
}
CLIP_H = ClipTextConfig(49408, 77, 64, 128, 13, 1, "gelu", 64)
SEEN = 48


def stand_ins(layout):
    return {key: torch.empty(shape, device="meta") for key, shape in layout.items()}


def drawn(layout, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    return {name: random_weight(name, shape, numbers) for name, shape in layout.items()}


def checkpoint(folder, unet=SMALL, deviation=0.0, **more):
    """The path of a small whole checkpoint."""
    from benchmarks.make_checkpoint import VAE

    network = drawn(unet_layout(unet))
    mark = network[supported_models.PREDICTION_MARK]
    network[supported_models.PREDICTION_MARK] = deviation * torch.tensor([1.0, -1.0]).repeat(len(mark) // 2)
    parts = {
        "model.diffusion_model.": network,
        "cond_stage_model.model.": drawn(open_clip_layout(CLIP_H)),
        "first_stage_model.": drawn(vae_layout(dataclasses.replace(VAE, channels=(32, 32, 64, 64)))),
        **more,
    }
    path = str(folder / "model.safetensors")
    tensors = {prefix + key: value.contiguous() for prefix, own in parts.items() for key, value in own.items()}
    safetensors.torch.save_file(tensors, path)
    return path


@pytest.mark.parametrize(("width", "family"), [(None, "SD20"), (1536, "SD21UnclipL"), (2048, "SD21UnclipH")])
def test_networks_of_the_second_generation_are_told_by_their_vector(width, family):
    config = model_detection.model_config_from_unet(stand_ins(unet_layout(dataclasses.replace(TWO, adm_in_channels=width))), "")
    assert type(config) is getattr(supported_models, family) and config.unet_config["num_head_channels"] == 64
    assert config.model_class() is model_base.BaseModel or width


@pytest.mark.parametrize("family", PRUNED)
def test_pruned_networks_are_told_and_made_as_they_are(family):
    layout = unet_layout(PRUNED[family])
    read = read_unet_config(layout, "")
    assert read == PRUNED[family] and unet_config_from_dict(read.as_dict()) == read
    config = model_detection.model_config_from_unet(stand_ins(layout), "")
    assert type(config) is getattr(supported_models, family)
    network = config.get_model({}).diffusion_model
    assert {name: tuple(value.shape) for name, value in network.named_parameters()} == layout


@pytest.mark.parametrize(("deviation", "kind"), [(0.05, "EPS"), (0.2, "V_PREDICTION")])
def test_a_whole_checkpoint_samples_by_what_it_predicts(deviation, kind, tmp_path):
    model, clip, vae, seen = comfy.sd.load_checkpoint_guess_config(checkpoint(tmp_path, deviation=deviation), output_clipvision=True)
    assert model.model.model_type.name == kind and seen is None and vae is not None
    tokens = clip.tokenize("a red apple")
    assert tokens.keys() == {"h"} and tokens["h"][0][-1] == (0, 1.0)
    with torch.inference_mode():
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red apple", ""))
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        done = comfy.sample.sample(
            model, noise, 2, 2.0, "euler", "normal", positive, negative, torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=1
        )
    assert positive[0][0].shape == (1, 77, 64) and torch.isfinite(done).all()


def test_a_saved_checkpoint_is_the_one_that_was_loaded(tmp_path):
    path, again = checkpoint(tmp_path), str(tmp_path / "saved.safetensors")
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path)
    comfy.sd.save_checkpoint(again, model, clip, vae)
    saved, original = safetensors.torch.load_file(again), safetensors.torch.load_file(path)
    assert all(torch.equal(saved[key], value) for key, value in original.items() if not key.endswith("logit_scale"))


def test_an_unclip_checkpoint_draws_after_pictures(tmp_path, monkeypatch):
    torch.manual_seed(4)
    eyes = CLIPVisionModelWithProjection(CLIPVisionConfig(**SIZES, projection_dim=SEEN, hidden_act="quick_gelu"))
    weights = {key: value.detach() for key, value in eyes.state_dict().items() if not key.endswith("position_ids")}
    monkeypatch.setattr(supported_models.SD21UnclipL, "vector_widths", (2 * SEEN,))
    monkeypatch.setattr(supported_models.SD21UnclipL, "width", SEEN)
    unet = dataclasses.replace(SMALL, adm_in_channels=2 * SEEN)
    path = checkpoint(tmp_path, unet, **{"embedder.model.": open_clip(weights)})
    monkeypatch.setattr(core_loaders.folder_paths, "get_full_path_or_raise", lambda *_: path)
    model, clip, _, encoder = core_loaders.unCLIPCheckpointLoader().load_checkpoint("model.safetensors")
    with torch.inference_mode():
        text = clip.encode_from_tokens_scheduled(clip.tokenize("x"))
        looks = encoder.encode_image(torch.rand(1, 28, 28, 3, generator=torch.Generator().manual_seed(2)))
        (shown,) = core_conditioning.unCLIPConditioning().apply_adm(text, looks, 1.0, 0.1)
        results = [
            comfy.sample.sample(
                model, torch.ones(1, 4, 8, 8), 1, 1.0, "euler", "normal", one, text, torch.zeros(1, 4, 8, 8), disable_pbar=True, seed=1
            )
            for one in (text, shown)
        ]
        assert core_conditioning.unCLIPConditioning().apply_adm(text, looks, 0.0, 0.1)[0] is text
        assert not torch.allclose(*results, rtol=0.01)
        looks.image_embeds = torch.zeros(1, 7)
        with pytest.raises(ValueError, match=f"takes pictures seen as {SEEN} values, not 7"):
            model.model.encode_adm(unclip_conditioning=shown[0][1]["unclip_conditioning"], device=torch.device("cpu"))


def test_noise_on_what_was_seen_grows_with_its_level():
    augmentor = CLIPEmbeddingNoiseAugmentation(USUAL_SCHEDULE, timestep_dim=SEEN)
    embedding = torch.ones(1, SEEN)
    distances = []
    for amount in (0.0, 0.5, 1.0):
        seen = [{"clip_vision_output": types.SimpleNamespace(image_embeds=embedding), "strength": 1.0, "noise_augmentation": amount}]
        made = unclip_adm(seen, torch.device("cpu"), augmentor, seed=-7)
        assert made.shape == (1, 2 * SEEN) and made.equal(unclip_adm(seen, torch.device("cpu"), augmentor, seed=-7))
        distances.append((made[:, :SEEN] - embedding).norm())
    assert distances[0] < 0.1 < distances[1] < distances[2]
    assert unclip_adm(seen * 2, torch.device("cpu"), augmentor, 0.05, seed=1).shape == (1, 2 * SEEN)
