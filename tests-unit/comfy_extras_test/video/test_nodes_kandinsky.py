"""Nodes of Kandinsky 5 and HunyuanVideo 1: what videos begin with, how first frames are likened, texts."""

import pytest
import torch

import comfy.clip_vision
from comfy_extras.hunyuan_video_nodes import HunyuanImageToVideo, TextEncodeHunyuanVideo_ImageToVideo
from comfy_extras.nodes_kandinsky5 import CLIPTextEncodeKandinsky5, Kandinsky5ImageToVideo, NormalizeVideoLatentStart

SIDES = {"positive": [[torch.zeros(1, 4, 8), {}]], "negative": [[torch.ones(1, 4, 8), {}]]}
SIZES = {"width": 96, "height": 64, "length": 9, "batch_size": 2}


class Ones:
    """Stands for an autoencoder."""

    def encode(self, frames):
        assert frames.shape[1:] == (64, 96, 3)
        return torch.ones(1, 16, (len(frames) - 1) // 4 + 1, frames.shape[1] // 8, frames.shape[2] // 8)


def test_a_video_of_kandinsky_begins_with_frames():
    positive, negative, latent, start = Kandinsky5ImageToVideo.execute(
        **SIDES, vae=Ones(), **SIZES, start_image=torch.ones(5, 50, 40, 4)
    ).args
    values = positive[0][1]
    assert values.keys() == negative[0][1].keys() == {"time_dim_replace", "concat_mask"} and start["samples"] is values["time_dim_replace"]
    assert latent["samples"].shape == (2, 16, 3, 8, 12) and latent["samples"].count_nonzero() == 0 and start["samples"].shape[2] == 2
    assert values["concat_mask"].mean(dim=(0, 1, 3, 4)).tolist() == [0.0, 0.0, 1.0]
    plain = Kandinsky5ImageToVideo.execute(**SIDES, vae=Ones(), **SIZES).args
    assert plain[0][0][1] == {} and plain[3] == {}


def test_first_frames_are_likened_to_those_that_follow():
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(1, 16, 12, 4, 6, generator=generator)
    samples[:, :, :4] = samples[:, :, :4] * 0.8 + 0.2
    latent = {"samples": samples.clone(), "noise_mask": torch.ones(1)}
    changed = NormalizeVideoLatentStart.execute(latent, 4, 5).args[0]
    following = samples[:, :, 4:9]
    assert (
        torch.equal(changed["samples"][:, :, 4:], samples[:, :, 4:]) and torch.equal(latent["samples"], samples) and "noise_mask" in changed
    )
    for frame in range(4):
        made = changed["samples"][:, :, frame]
        assert made.mean() == pytest.approx(following.mean().item(), abs=1e-4) and made.std() == pytest.approx(
            following.std().item(), abs=1e-4
        )
    far = {"samples": torch.cat((samples[:, :, :4] + 5, samples[:, :, 4:]), dim=2)}
    moved = NormalizeVideoLatentStart.execute(far, 4, 5).args[0]["samples"][:, :, :4].mean() - far["samples"][:, :, :4].mean()
    assert moved.item() == pytest.approx(-0.3, abs=1e-4)
    for alone, count in (({"samples": samples[:, :, :1]}, 4), ({"samples": samples}, 12)):
        assert NormalizeVideoLatentStart.execute(alone, count, 5).args[0] is alone


@pytest.mark.parametrize(
    ("kind", "names"),
    [("v1 (concat)", {"concat_latent_image", "concat_mask"}), ("v2 (replace)", {"guiding_frame_index"}), ("custom", {"ref_latent"})],
)
def test_a_video_of_hunyuan_begins_as_its_version_wants(kind, names):
    given = {"positive": SIDES["positive"], "vae": Ones(), **SIZES, "guidance_type": kind}
    positive, latent = HunyuanImageToVideo.execute(**given, start_image=torch.ones(1, 50, 40, 3)).args
    assert positive[0][1].keys() == names and latent["samples"].shape == (2, 16, 3, 8, 12)
    if kind == "v2 (replace)":
        assert latent["samples"].mean(dim=(0, 1, 3, 4)).tolist() == [1.0, 0.0, 0.0]
        assert latent["noise_mask"].mean(dim=(0, 1, 3, 4)).tolist() == [0.0, 1.0, 1.0]
    else:
        assert latent["samples"].count_nonzero() == 0 and "noise_mask" not in latent
    assert HunyuanImageToVideo.execute(**given).args[0] is SIDES["positive"]


class Encoder:
    """Stands for a text encoder: its tokens are what it was given."""

    def tokenize(self, text, **options):
        return {"l": text, "qwen25_7b": text, **options}

    def encode_from_tokens_scheduled(self, tokens):
        return tokens


def test_each_text_encoder_of_kandinsky_gets_its_text():
    tokens = CLIPTextEncodeKandinsky5.execute(Encoder(), "short", "long").args[0]
    assert tokens == {"l": "short", "qwen25_7b": "long"}


def test_what_an_image_encoder_saw_goes_into_the_conversation():
    output = comfy.clip_vision.Output()
    output["mm_projected"] = seen = torch.ones(1, 6, 8)
    tokens = TextEncodeHunyuanVideo_ImageToVideo.execute(Encoder(), output, "text", 3).args[0]
    assert tokens["image_embeds"] is seen and tokens["image_interleave"] == 3 and tokens["llama_template"].count("<image>") == 1
    output["mm_projected"] = None
    with pytest.raises(ValueError, match="llava_llama3_vision"):
        TextEncodeHunyuanVideo_ImageToVideo.execute(Encoder(), output, "text", 3)
