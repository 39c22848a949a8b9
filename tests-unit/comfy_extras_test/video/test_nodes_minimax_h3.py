"""MiniMax H3's nodes: sizes and lengths, guides, what a prompt is told of, and shifts."""

from types import SimpleNamespace

import pytest
import torch
from minimax_files import minimax_file

import comfy.sd
from comfy_extras.minimax_values import canvas, empty_with_sound, usable_length, whole_length
from comfy_extras.nodes_minimax_h3 import (
    EmptyMiniMaxH3LatentAV,
    MiniMaxH3AddGuide,
    MiniMaxH3ImageToVideo,
    MiniMaxH3ReferenceToVideo,
    MiniMaxH3SigmaShift,
)


class Encoder:
    """Stands for both autoencoders."""

    audio_sample_rate = 32000

    @staticmethod
    def encode(values):
        if values.ndim == 3:
            return torch.zeros(1, 32, 2, values.shape[1] // 800)
        return torch.zeros(1, 24, 1 if len(values) == 1 else (len(values) - 5) // 17 * 5 + 2, *(side // 16 for side in values.shape[1:3]))


def clip(told):
    """A text encoder that notes what it was told in *told*."""
    return SimpleNamespace(
        tokenize=lambda text, **given: told.update(given) or text,
        encode_from_tokens_scheduled=lambda tokens: [[torch.zeros(1, 3, 4), {"pooled_output": None}]],
    )


def latent_of(node_output):
    return [tuple(part.shape) for part in node_output["samples"].unbind()]


def test_lengths_are_those_that_the_model_makes():
    assert [whole_length(frames) for frames in (1, 5, 6, 22, 23, 124)] == [5, 5, 22, 22, 39, 124]
    assert [usable_length(frames) for frames in (5, 21, 22, 40)] == [5, 5, 22, 39]
    (latent,) = EmptyMiniMaxH3LatentAV.execute(1344, 768, 124).args
    assert latent_of(latent) == [(1, 24, 37, 48, 84), (1, 32, 2, 207)]


def test_a_canvas_is_never_larger_than_the_video():
    assert canvas(1920, 1080) == (1344, 768) and canvas(1000, 1000) == (768, 768) and canvas(320, 200) == (320, 192)


def test_first_and_last_frame_are_put_in_their_places():
    told = {}
    picture = torch.rand(2, 40, 60, 3)
    size = {"width": 64, "height": 32, "length": 22}
    positive, latent = MiniMaxH3ImageToVideo.execute(clip(told), Encoder(), "hi", **size, first_frame=picture, last_frame=picture).args
    frames = positive[0][1]["minimax_keyframes"]
    assert [frame["resolved_frame_index"] for frame in frames] == [0, 21] and frames[0]["latent"].shape == (1, 24, 1, 2, 4)
    assert [tuple(image.shape) for image in told["images"]] == [(1, 32, 64, 3)] * 2 and not torch.equal(*told["images"])
    assert latent_of(latent)[0] == (1, 24, 7, 2, 4)


def guided(frame_idx, **given):
    latent, _ = empty_with_sound(64, 32, 22)
    made = MiniMaxH3AddGuide.execute([[torch.zeros(1, 3, 4), {}]], latent, frame_idx, **given)
    return made.args[0][0][1]["minimax_keyframes"]


def test_guides_are_added_and_cut_to_the_video():
    sound = {"waveform": torch.zeros(1, 2, 64000), "sample_rate": 32000}
    (guide,) = guided(-5, vae=Encoder(), image=torch.rand(6, 40, 60, 3), audio_vae=Encoder(), audio=sound)
    assert guide["resolved_frame_index"] == 17 and guide["latent"].shape[2] == 2
    assert guide["audio_latent"].shape[-1] == 37 - 29


@pytest.mark.parametrize(
    "frame, given, message",
    [
        (0, {}, "connect an image or an audio"),
        (22, {"image": torch.rand(1, 8, 8, 3), "vae": Encoder()}, "not within the 22 frames"),
        (18, {"image": torch.rand(5, 8, 8, 3), "vae": Encoder()}, "a guide of 5 frames"),
        (0, {"image": torch.rand(1, 8, 8, 3)}, "connect vae"),
        (0, {"audio": {"waveform": torch.zeros(1, 2, 800), "sample_rate": 32000}}, "connect audio_vae"),
    ],
)
def test_guides_that_cannot_be_are_one_clear_error(frame, given, message):
    with pytest.raises(ValueError, match=message):
        guided(frame, **given)
    with pytest.raises(ValueError, match="Empty MiniMax H3 AV Latent"):
        MiniMaxH3AddGuide.execute([[torch.zeros(1, 3, 4), {}]], {"samples": torch.zeros(1, 24, 7, 2, 4)}, 0)


def test_what_is_shown_is_told_in_order():
    told = {}
    sound = {"waveform": torch.zeros(1, 1, 1600), "sample_rate": 32000}
    films = {"ref_video_0": torch.rand(30, 32, 32, 3), "ref_video_1": torch.rand(5, 32, 32, 3)}
    given = {"ref_images": {"ref_image_0": torch.rand(1, 640, 320, 3)}, "ref_videos": films, "ref_audios": {"ref_audio_0": sound}}
    made = MiniMaxH3ReferenceToVideo.execute(
        clip(told), Encoder(), Encoder(), "hi", 64, 64, 22, **given, ref_video_audios={"ref_video_audio_1": sound}
    )
    shown = made.args[0][0][1]["minimax_refs"]
    assert [item["type"] for item in told["minimax_ref_items"]] == ["image", "video", "audio", "video", "audio"]
    assert [block["kind"] for block in shown] == ["image", "video", "video_audio", "audio"]
    assert (shown[0]["latent_h"], shown[0]["latent_w"]) == (6, 2) and shown[1]["latent_t"] == 7 and shown[2]["ref_audio_t"] == 2
    with pytest.raises(ValueError, match="at least 5"):
        MiniMaxH3ReferenceToVideo.execute(
            clip({}), Encoder(), Encoder(), "hi", 64, 64, 22, ref_videos={"ref_video_0": films["ref_video_1"][:4]}
        )


def test_shifts_are_the_samplers_and_the_networks(tmp_path):
    model = comfy.sd.load_diffusion_model(minimax_file(tmp_path / "h3.safetensors"))
    (shifted,) = MiniMaxH3SigmaShift.execute(model, 6.0, 2.0).args
    sampling = shifted.get_model_object("model_sampling")
    assert sampling.shift == 6.0 and sampling.audio_scale == 3.0
    options = shifted.model_options["transformer_options"]
    assert options["minimax_h3_sigma_shift_video"] == 6.0 and options["minimax_h3_sigma_shift_audio"] == 2.0
    assert model.get_model_object("model_sampling").shift == 12.0
