"""LTX's nodes: beginnings, guides, schedules, guidance of video and sound apart, latents of both, upsamplers, sound."""

import math

import pytest
import torch

import comfy.samplers
from comfy.nested_tensor import NestedTensor
from comfy_extras import ltx_guides as guides
from comfy_extras import ltx_latent_nodes as latents
from comfy_extras import ltx_sampling_nodes as sampling
from comfy_extras import nodes_lt, nodes_lt_audio
from comfy_extras.nodes_lt_upsampler import LTXVLatentUpsampler

TEXT = [[torch.zeros(1, 3, 4), {"pooled_output": None}]]


class Averages:
    """Stands for LTX's autoencoder: a cell holds the mean of its pixels, of every eighth frame."""

    downscale_index_formula = (8, 32, 32)
    audio_sample_rate, latent_channels = 44100, 8

    class first_stage_model:  # noqa: N801 - an attribute
        latent_frequency_bins, output_sample_rate = 16, 24000

        @staticmethod
        def num_of_latents_from_frames(frames, rate):
            return round(frames / rate * 25)

    def encode(self, frames):
        if frames.shape[-1] == 2:
            return torch.ones(1, 8, 6, 16)
        cells = torch.nn.functional.avg_pool2d(frames[::8].movedim(-1, 1), 32).mean(dim=1)
        return cells[None, None].expand(1, 128, -1, -1, -1)

    def decode(self, latent):
        return torch.zeros(1, 400, 2)


@pytest.fixture
def video():
    return {"samples": torch.zeros(1, 128, 4, 2, 3)}


def test_empty_latents_have_a_cell_for_eight_frames():
    made = nodes_lt.EmptyLTXVLatentVideo.execute(96, 64, 97).args[0]
    assert made["samples"].shape == (1, 128, 13, 2, 3) and made["downscale_ratio_spacial"] == 32
    sound = nodes_lt_audio.LTXVEmptyLatentAudio.execute(50, 25, 2, Averages()).args[0]
    assert sound["samples"].shape == (2, 8, 50, 16) and sound["type"] == "audio"


def test_a_picture_stands_at_the_beginning(video):
    picture = torch.full((1, 40, 50, 3), 0.5)
    made = latents.LTXVImgToVideoInplace.execute(Averages(), picture, video, 0.75).args[0]
    assert made["samples"][:, :, 0].eq(0.5).all() and not made["samples"][:, :, 1:].any() and not video["samples"].any()
    assert made["noise_mask"].flatten().tolist() == [0.25, 1, 1, 1]
    assert latents.LTXVImgToVideoInplace.execute(Averages(), picture, video, 0.75, True).args[0] is video
    positive, negative, whole = latents.LTXVImgToVideo.execute(TEXT, TEXT, picture, Averages(), 96, 64, 25, 2, 1.0).args
    assert positive is TEXT and negative is TEXT and whole["samples"].shape == (2, 128, 4, 2, 3)
    assert whole["noise_mask"].flatten().tolist() == [0, 1, 1, 1] * 2


def test_compressed_pictures_keep_their_colours():
    pytest.importorskip("av")
    picture = torch.rand(1, 33, 41, 3, generator=torch.Generator().manual_seed(1))
    made = latents.LTXVPreprocess.execute(picture, 30).args[0]
    assert made.shape == (1, 32, 40, 3) and (made.mean() - picture.mean()).abs() < 0.05
    assert torch.equal(latents.LTXVPreprocess.execute(picture, 0).args[0], picture)


def test_guides_are_added_and_taken_off(video):
    picture = torch.full((1, 64, 96, 3), 0.5)
    positive, negative, made = guides.LTXVAddGuide.execute(TEXT, TEXT, Averages(), video, picture, -1, 0.75).args
    assert made["samples"].shape[2] == 5 and made["noise_mask"].flatten().tolist() == [1, 1, 1, 1, 0.25]
    places, count = guides.get_keyframe_idxs(positive, made["samples"].shape)
    assert count == 1 and places.shape == (1, 3, 6, 2) and places[0, 0].unique().tolist() == [24, 25]
    entry = guides.conditioning_get_any_value(negative, "guide_attention_entries")[0]
    assert entry == {"pre_filter_count": 6, "strength": 0.75, "pixel_mask": None, "latent_shape": [1, 2, 3]}
    clip = torch.full((12, 64, 96, 3), 0.25)
    again = guides.LTXVAddGuide.execute(positive, negative, Averages(), made, clip, 10, 2.0, torch.ones(1, 64, 96)).args
    places, count = guides.get_keyframe_idxs(again[0])
    assert count == 2 and places[0, 0, 6:].unique().tolist() == [9, 17] and again[2]["noise_mask"].flatten()[-1] == 0.0
    positive, negative, cropped = guides.LTXVCropGuides.execute(*again).args
    assert cropped["samples"].shape == video["samples"].shape and guides.get_keyframe_idxs(positive) == (None, 0)
    unchanged = guides.LTXVCropGuides.execute(TEXT, TEXT, video).args
    assert unchanged[0] is TEXT and torch.equal(unchanged[2]["samples"], video["samples"])


def test_smaller_guides_are_spread_out():
    latent = {"samples": torch.zeros(1, 128, 2, 4, 4)}
    half = {"reference_downscale_factor": "2"}
    picture = torch.full((1, 64, 64, 3), 0.5)
    positive, _, made = guides.LTXVAddGuide.execute(TEXT, TEXT, Averages(), latent, picture, 0, 1.0, None, half).args
    guide, mask = made["samples"][0, 0, -1], made["noise_mask"][0, 0, -1]
    assert guide[::2, ::2].eq(0.5).all() and guide.sum() == 2.0 and mask[::2, ::2].eq(0.0).all() and mask[1::2].eq(-2.0).all()
    places = guides.get_keyframe_idxs(positive)[0]
    assert places[0, 1, 0].tolist() == [0, 64] and guides.smaller_by({"reference_downscale_factor": "x"}) == guides.smaller_by(None) == 1
    with pytest.raises(ValueError, match="do not divide"):
        guides.LTXVAddGuide.execute(TEXT, TEXT, Averages(), {"samples": torch.zeros(1, 128, 2, 2, 3)}, picture, 0, 1.0, None, half)
    with pytest.raises(ValueError, match="shorten the guide"):
        guides.LTXVAddGuide.execute(TEXT, TEXT, Averages(), latent, torch.zeros(25, 64, 64, 3), 0, 1.0)
    with pytest.raises(ValueError, match="LTXVSeparateAVLatent"):
        guides.append_keyframe(
            (TEXT, TEXT), 0, torch.zeros(1, 8, 1, 1, 1), torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 128, 1, 1, 1), 1, (8, 32, 32)
        )


def test_loras_say_how_much_smaller_guides_are():
    class Model:
        def __init__(self, metadata):
            self.metadata = metadata

        def get_attachment(self, name):
            return self.metadata

    for metadata, factor in ((None, 1), ({}, 1), ({"a.reference_downscale_factor": "2"}, 2), ({"reference_downscale_factor": "?"}, 1)):
        assert guides.GetICLoRAParameters.execute(Model(metadata)).args[0] == {"reference_downscale_factor": factor}


def test_sigmas_follow_the_size_of_the_video(video):
    plain = sampling.LTXVScheduler.execute(4, 2.05, 0.95, True, 0.1).args[0]
    assert plain[0] == pytest.approx(1) and plain[-1] == 0 and plain[-2] == pytest.approx(0.1) and bool((plain.diff() < 0).all())
    small = sampling.LTXVScheduler.execute(4, 2.05, 0.95, False, 0.1, video).args[0]
    grown = math.exp(sampling.shift_for(video, 2.05, 0.95))
    assert small[2] == pytest.approx(grown / (grown + 1)) and sampling.shift_for(None, 2.05, 0.95) == pytest.approx(2.05)
    told = sampling.LTXVConditioning.execute(TEXT, TEXT, 30.0).args
    assert all(side[0][1]["frame_rate"] == 30.0 for side in told)


def test_both_kinds_of_latents_are_joined_and_taken_apart(video):
    sound = {"samples": torch.ones(1, 8, 5, 16), "noise_mask": torch.zeros(1, 1, 5, 16), "type": "audio"}
    joined = latents.LTXVConcatAVLatent.execute(video, sound).args[0]
    assert isinstance(joined["samples"], NestedTensor) and joined["noise_mask"].unbind()[0].eq(1).all()
    apart = latents.LTXVSeparateAVLatent.execute(joined).args
    assert torch.equal(apart[0]["samples"], video["samples"]) and torch.equal(apart[1]["noise_mask"], sound["noise_mask"])
    longer = {"samples": torch.full((1, 8, 7, 16), 2.0)}
    swapped = latents.LTXVConcatAVLatent.execute(joined, longer).args[0]
    assert swapped["samples"].unbind()[1].shape == (1, 8, 5, 16) and swapped["samples"].unbind()[1].eq(2).all()
    shorter = {"samples": torch.ones(1, 8, 3, 16), "noise_mask": torch.zeros(1, 1, 3, 16)}
    filled = latents.LTXVConcatAVLatent.execute(joined, shorter).args[0]
    assert filled["samples"].unbind()[1][:, :, 3:].eq(0).all() and filled["noise_mask"].unbind()[1][:, :, 3:].eq(1).all()
    assert "noise_mask" not in latents.LTXVConcatAVLatent.execute(video, longer).args[0]
    with pytest.raises(ValueError, match="cannot take the place"):
        latents.LTXVConcatAVLatent.execute(joined, {"samples": torch.ones(1, 4, 3, 16)})
    with pytest.raises(ValueError, match="no sound to separate"):
        latents.LTXVSeparateAVLatent.execute(video)


def test_video_and_sound_are_guided_by_their_own_scales(monkeypatch):
    class Patcher:
        model_options: dict = {}

    guider = sampling.Guider_LTXAVDualCFG(Patcher())
    guider.set_cfg(2.0, 5.0)
    guider.inner_model, guider.conds = None, {}
    both = NestedTensor((torch.zeros(1, 2, 3), torch.zeros(1, 4)))
    monkeypatch.setattr(comfy.samplers.CFGGuider, "sample", lambda self, noise, latent, *rest: latent)
    guider.sample(both, both)
    seen = {}

    def function(model, x, sigma, negative, positive, cfg, model_options, seed):
        seen.update(model_options, cfg=cfg)
        return x

    monkeypatch.setattr(comfy.samplers, "sampling_function", function)
    guider.predict_noise(torch.zeros(1, 1, 10), torch.ones(1))
    assert seen["disable_cfg1_optimization"]
    made = seen["sampler_cfg_function"]({"cond": torch.ones(1, 1, 10), "uncond": torch.zeros(1, 1, 10)})
    assert made.flatten().tolist() == [2.0] * 6 + [5.0] * 4
    seen.clear()
    guider.set_cfg(3.0, 3.0)
    guider.predict_noise(torch.zeros(1, 1, 10), torch.ones(1))
    assert seen == {"cfg": 3.0}


class Sampled:
    """Stands for a model's patcher: remembers what guides it."""

    def __init__(self):
        self.function = None

    def clone(self):
        return Sampled()

    def get_model_object(self, name):
        class Schedule:
            @staticmethod
            def percent_to_sigma(percent):
                return 1.0 - percent

        return Schedule

    def set_model_sampler_post_cfg_function(self, function):
        self.function = function


def guided(clone, monkeypatch, sigma=0.5):
    """(what comes of 10 for a prediction of 3 and a weaker one of 1, the conditioning and options that this was made with)."""
    asked = []

    def calc(model, conds, x, timestep, options):
        asked.append((conds[0], options))
        return (torch.tensor(1.0),)

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", calc)
    entry = {"model_conds": {"ref_audio": 1, "other": 2}}
    given = {"denoised": torch.tensor(10.0), "cond_denoised": torch.tensor(3.0), "cond": [entry], "model": None, "input": None}
    options = {"transformer_options": {"kept": 1}}
    made = clone.function({**given, "sigma": torch.tensor([sigma]), "model_options": options})
    assert options == {"transformer_options": {"kept": 1}} and entry["model_conds"] == {"ref_audio": 1, "other": 2}
    return float(made), asked


def test_guidance_away_from_weaker_predictions(monkeypatch):
    passing = sampling.LTXVSpatioTemporalGuidance.execute(Sampled(), 2.0, "3, 1", 0.0, 0.8).args[0]
    made, asked = guided(passing, monkeypatch)
    assert made == 14.0 and asked[0][1]["transformer_options"] == {"kept": 1, "stg_self_attn_blocks": (1, 3)}
    assert guided(passing, monkeypatch, 0.1) == (10.0, [])
    assert guided(sampling.LTXVSpatioTemporalGuidance.execute(Sampled(), 2.0, "", 0.0, 1.0).args[0], monkeypatch) == (10.0, [])
    made, asked = guided(sampling.LTXVModalityGuidance.execute(Sampled(), 3.0, 0.0, 1.0).args[0], monkeypatch)
    assert made == 14.0 and asked[0][1]["transformer_options"] == {"kept": 1, "a2v_cross_attn": False, "v2a_cross_attn": False}
    assert guided(sampling.LTXVModalityGuidance.execute(Sampled(), 1.0, 0.0, 1.0).args[0], monkeypatch) == (10.0, [])


def test_a_voice_is_heard_before(monkeypatch):
    sound = {"waveform": torch.zeros(1, 2, 44100), "sample_rate": 44100}
    clone, positive, negative = sampling.LTXVReferenceAudio.execute(Sampled(), TEXT, TEXT, sound, Averages(), 1.5, 0.0, 1.0).args
    assert positive[0][1]["ref_audio"]["tokens"].shape == negative[0][1]["ref_audio"]["tokens"].shape == (1, 6, 128)
    made, asked = guided(clone, monkeypatch)
    assert made == 13.0 and asked[0][0] == [{"model_conds": {"other": 2}}]
    with pytest.raises(ValueError, match="there is no sound"):
        sampling.LTXVReferenceAudio.execute(Sampled(), TEXT, TEXT, None, Averages(), 1.5, 0.0, 1.0)


def test_sound_is_decoded_at_its_rate():
    both = {"samples": NestedTensor((torch.zeros(1, 128, 1, 1, 1), torch.zeros(1, 8, 2, 16)))}
    sound = nodes_lt_audio.LTXVAudioVAEDecode.execute(both, Averages()).args[0]
    assert sound["sample_rate"] == 24000 and sound["waveform"].shape == (1, 2, 400)
    waveform = {"waveform": torch.zeros(1, 2, 400), "sample_rate": 44100}
    assert nodes_lt_audio.LTXVAudioVAEEncode.execute(waveform, Averages()).args[0]["samples"].shape == (1, 8, 6, 16)


def test_upsamplers_of_others_are_refused(video):
    with pytest.raises(ValueError, match="connect LTX's latent upscale model"):
        LTXVLatentUpsampler.execute(video, object(), Averages())
