"""HunyuanVideo 1.5's nodes: what a video begins with, larger latents, what the network that adds detail is given."""

import pytest
import torch
from hunyuan_files import upscaler_tensors
from safetensors.torch import save_file

import comfy.clip_vision
import folder_paths
from comfy.families.model_errors import UnknownModelError
from comfy.ldm.hunyuan_video.upsampler import SRModel3DV2, Upsampler
from comfy.loading.latent_upscaler import load_latent_upscaler, read_upscaler_config
from comfy_extras.hunyuan_video_nodes import (
    HunyuanVideo15ImageToVideo,
    HunyuanVideo15LatentUpscaleWithModel,
    HunyuanVideo15SuperResolution,
    LatentUpscaleModelLoader,
)

SIDES = {"positive": [[torch.zeros(1, 4, 8), {}]], "negative": [[torch.ones(1, 4, 8), {}]]}


class Ones:
    """Stands for an autoencoder."""

    def encode(self, frames):
        return torch.ones(1, 32, (len(frames) - 1) // 4 + 1, frames.shape[1] // 16, frames.shape[2] // 16)


def told(outputs):
    positive, negative = (side[0][1] for side in outputs[:2])
    assert positive.keys() == negative.keys()
    return positive


def test_a_video_begins_with_a_picture():
    sizes = {"width": 96, "height": 64, "length": 9, "batch_size": 2}
    seen = comfy.clip_vision.Output()
    outputs = HunyuanVideo15ImageToVideo.execute(
        **SIDES, vae=Ones(), **sizes, start_image=torch.ones(1, 50, 40, 3), clip_vision_output=seen
    ).args
    values = told(outputs)
    assert outputs[2]["samples"].shape == (2, 32, 3, 4, 6) and values["clip_vision_output"] is seen
    assert values["concat_latent_image"].mean(dim=(0, 1, 3, 4)).tolist() == [1.0, 0.0, 0.0]
    assert values["concat_mask"].mean(dim=(0, 1, 3, 4)).tolist() == [0.0, 1.0, 1.0]
    assert told(HunyuanVideo15ImageToVideo.execute(**SIDES, vae=Ones(), **sizes).args) == {}


def test_the_network_that_adds_detail_gets_a_picture_and_the_video():
    latent = {"samples": torch.full((1, 32, 3, 4, 6), 0.5)}
    plain = told(HunyuanVideo15SuperResolution.execute(**SIDES, latent=latent, noise_augmentation=0.7).args)
    joined = plain["concat_latent_image"]
    assert plain["noise_augmentation"] == 0.7 and joined.shape == (1, 66, 3, 4, 6)
    assert joined[:, :33].count_nonzero() == 0 and joined[:, 33:65].unique().tolist() == [0.5] and joined[:, 65].unique().tolist() == [1.0]
    picture = torch.ones(1, 64, 96, 3)
    outputs = HunyuanVideo15SuperResolution.execute(**SIDES, latent=latent, noise_augmentation=0.7, vae=Ones(), start_image=picture).args
    begun = told(outputs)["concat_latent_image"]
    assert begun[:, :32].mean(dim=(0, 1, 3, 4)).tolist() == [1.0, 0.0, 0.0] and begun[0, 33, 0].unique().tolist() == [1.0]
    assert outputs[2] is latent and latent["samples"].unique().tolist() == [0.5]
    with pytest.raises(ValueError, match="connect vae"):
        HunyuanVideo15SuperResolution.execute(**SIDES, latent=latent, noise_augmentation=0.7, start_image=picture)


@pytest.mark.parametrize(("kind", "network"), [("720p", SRModel3DV2), ("1080p", Upsampler)])
def test_latents_are_made_larger_then_sharper(kind, network, tmp_path, monkeypatch):
    save_file(upscaler_tensors(kind), tmp_path / "model.safetensors")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "latent_upscale_models", ([str(tmp_path)], {".safetensors"}))
    with torch.inference_mode():
        model = LatentUpscaleModelLoader.execute("model.safetensors").args[0]
        assert type(model.model) is network and model.get_sd().keys() == upscaler_tensors(kind).keys()
        latent = {"samples": torch.randn(1, 32, 3, 4, 6), "noise_mask": torch.ones(1)}
        run = HunyuanVideo15LatentUpscaleWithModel.execute
        made = run(model, latent, "bilinear", 192, 128, "disabled").args[0]
        assert made.keys() == {"samples"} and made["samples"].shape == (1, 32, 3, 8, 12) and made["samples"].isfinite().all()
        assert run(model, latent, "bilinear", 0, 0, "disabled").args[0] is latent
        assert run(model, latent, "bilinear", 0, 128, "center").args[0]["samples"].shape == (1, 32, 3, 8, 12)


def test_a_model_that_adds_its_input_differs_by_it():
    torch.manual_seed(1)
    plain = SRModel3DV2(4, 4, 8, 1).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 4, 2, 3, 3)
    result = plain(x)
    plain.global_residual = True
    torch.testing.assert_close(plain(x), result + x)


def test_other_files_are_refused_by_name(tmp_path):
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "odd.safetensors")
    with pytest.raises(UnknownModelError, match=r"odd\.safetensors.*720p and 1080p"):
        load_latent_upscaler(str(tmp_path / "odd.safetensors"))
    kind, sizes = read_upscaler_config({name: tuple(value.shape) for name, value in upscaler_tensors("1080p").items()})
    assert kind == "1080p" and sizes["block_out_channels"] == (32, 8) and sizes["num_res_blocks"] == 2
