"""Wan's networks that hear: what their files are told by, that every input counts, what samplers pass on, and their nodes."""

import pytest
import torch
from wan_files import wan_config, wan_tensors

import comfy.model_base
import comfy.sd
import comfy.supported_models
from comfy.dit.models.wan_sound import WAN22_S2V, WAN21_HuMo, black_frames
from comfy.ldm.wan.hearing import FramePackMotioner
from comfy.ldm.wan.sound import HumoWanModel, WanModel_S2V
from comfy_extras.wan_sound_nodes import (
    WanHuMoImageToVideo,
    WanSoundImageToVideo,
    WanSoundImageToVideoExtend,
    at_rate,
    humo_sound,
    s2v_sound,
)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loaded(kind, **sizes):
    return comfy.sd.load_diffusion_model_state_dict(wan_tensors(kind, **sizes), model_options={"dtype": torch.float32}).model


@pytest.fixture(scope="module")
def s2v():
    return loaded("s2v")


@pytest.fixture(scope="module")
def humo():
    return loaded("humo")


def inputs():
    return {"x": numbers(1, 16, 3, 8, 8, seed=1), "timestep": torch.tensor([600.0]), "context": numbers(1, 5, 64, seed=2)}


def test_networks_are_told_by_their_tensors(s2v, humo):
    for model, kind, network, config in (
        (s2v, WAN22_S2V, WanModel_S2V, comfy.supported_models.WAN22_S2V),
        (humo, WAN21_HuMo, HumoWanModel, comfy.supported_models.WAN21_HuMo),
    ):
        assert type(model) is kind is getattr(comfy.model_base, kind.__name__)
        assert type(model.diffusion_model) is network and type(model.model_config) is config
    assert wan_config("s2v", width=5120, depth=40)["audio_inject_layers"] == (0, 4, 8, 12, 16, 20, 24, 27, 30, 33, 36, 39)


def assert_every_input_counts(network, further):
    plain = network(**inputs(), **further)
    assert plain.shape == (1, 16, 3, 8, 8)
    for name, value in further.items():
        assert not torch.allclose(network(**inputs(), **{**further, name: value * 1.5}), plain), name
    assert not torch.allclose(network(**{**inputs(), "timestep": torch.tensor([610.0])}, **further), plain)


def test_every_input_counts(s2v, humo):
    latents = {
        name: numbers(1, 16, frames, 8, 8, seed=5 + frames)
        for name, frames in (("reference_latent", 1), ("reference_motion", 7), ("control_video", 3))
    }
    assert_every_input_counts(s2v.diffusion_model, {"audio_embed": numbers(1, 3, 8, 12), **latents})
    assert_every_input_counts(
        humo.diffusion_model, {"audio_embed": numbers(1, 3, 8, 5, 2), "reference_latent": latents["reference_latent"]}
    )


def test_blocks_are_replaced_and_patched_with_sound_in_them(humo):
    seen = []

    def replacement(given, extra):
        seen.append("replaced")
        return extra["original_block"](given)

    def patch(given):
        seen.append("patched")
        return given["x"]

    sound = {"audio_embed": numbers(1, 3, 8, 5, 2)}
    plain = humo.diffusion_model(**inputs(), **sound)
    options = {"patches_replace": {"dit": {("double_block", 0): replacement}}, "patches": {"attn2_patch": [patch]}}
    assert torch.equal(humo.diffusion_model(**inputs(), **sound, transformer_options=options), plain)
    assert seen == ["replaced", "patched", "patched"]


def test_frames_before_the_video_are_the_coarser_the_farther():
    packer = FramePackMotioner(16, 8, operations=torch.nn)

    class Places:
        """Counts tokens instead of turning them."""

        def rope_encode(self, t, h, w, t_start, steps_h=None, steps_w=None, **kwargs):
            return torch.full((1, t * (steps_h or h // 2) * (steps_w or w // 2), 1), float(t_start))

    tokens, turns = packer(numbers(1, 16, 7, 16, 16), Places())
    assert tokens.shape == (1, 64 + 16 + 16, 8) and turns.shape[1] == tokens.shape[1]
    assert turns[0, :, 0].unique().tolist() == [-19.0, -3.0, -1.0]


def test_what_samplers_pass_on_to_s2v(s2v):
    picture, motion = numbers(1, 16, 1, 8, 8), numbers(1, 16, 19, 8, 8)
    given = {"noise": torch.zeros(1, 16, 3, 8, 8), "device": torch.device("cpu"), "cross_attn": numbers(1, 5, 64)}
    told = {
        "reference_latents": [picture],
        "reference_motion": motion,
        "control_video": motion[:, :, :3],
        "audio_embed": numbers(1, 3, 8, 12),
    }
    made = s2v.extra_conds(**given, **told)
    assert (
        torch.equal(made["reference_latent"].cond, s2v.process_latent_in(picture)) and made["reference_motion"].cond.shape == motion.shape
    )
    assert {"control_video", "audio_embed"} <= made.keys()
    shapes = s2v.extra_conds_shapes(**told)
    assert shapes["reference_latent"] == [1, 16, 64] and shapes["reference_motion"] == motion.shape
    in_use = {name: [shape] for name, shape in shapes.items()}
    assert s2v.memory_required([1, 16, 3, 8, 8], in_use) > s2v.memory_required([1, 16, 3, 8, 8])


def test_the_large_humo_has_black_frames_beside_the_video():
    model, picture = loaded("humo", channels=36), numbers(1, 16, 1, 8, 8)
    given = {"noise": torch.zeros(2, 16, 4, 8, 8), "device": torch.device("cpu"), "cross_attn": numbers(1, 5, 64)}
    made = model.extra_conds(**given, reference_latents=[picture])
    beside = made["c_concat"].cond
    assert beside.shape == (2, 20, 4, 8, 8) and not beside[:, :4].any() and torch.equal(beside[:, 4:], black_frames(given["noise"]))
    assert torch.equal(beside[:, 4:, 2], beside[:, 4:, 3]) and not torch.equal(beside[:, 4:, 1], beside[:, 4:, 2])
    reference = made["reference_latent"].cond
    assert not reference[:, :16].any() and (reference[:, 16:20] == 1).all()
    assert torch.equal(reference[:, 20:], model.process_latent_in(picture))


def test_states_are_brought_to_a_rate():
    line = torch.arange(50.0)[None, :, None]
    changed = at_rate(line, 25)
    assert changed.shape == (1, 25, 1) and changed[0, 0, 0] == 0 and changed[0, -1, 0] == 49


def test_s2v_hears_what_belongs_to_its_frames():
    ramp = torch.arange(100.0)[None, :, None].expand(-1, -1, 2)
    heard = {"encoded_audio_all_layers": (ramp, ramp + 1000)}
    sound = s2v_sound(heard, 13, 0)
    assert sound.shape == (1, 2, 2, 16) and sound[0, 0, 0, 0] == 0 and torch.allclose(sound[0, 1], sound[0, 0] + 1000)
    later = s2v_sound(heard, 13, 16)
    assert later[0, 0, 0, 0] > sound[0, 0, 0, -1] and s2v_sound(heard, 13, 4000) is None
    assert not s2v_sound(heard, 13, 32)[0, 0, 0, -1], "silence behind the end"


def test_humo_hears_around_its_frames():
    ramp = torch.arange(40.0)[None, :, None].expand(-1, -1, 3)
    heard = {"encoded_audio_all_layers": tuple(ramp + 100 * layer for layer in range(33)), "audio_samples": 640 * 20}
    sound = humo_sound(heard, 9)
    assert sound.shape == (1, 3, 8, 5, 3) and not sound[0, 0, :5].any() and sound[0, 0, 5, 4, 0] == 3200
    assert sound[0, 1, 0, 4, 0] == 0 and sound[0, 1, 1, 4, 0] == 3200
    with pytest.raises(ValueError, match="largest Whisper"):
        humo_sound({"encoded_audio_all_layers": (ramp,) * 25, "audio_samples": 640}, 9)


class Autoencoder:
    """Makes latents of videos by picking frames and pixels."""

    def encode(self, pixels):
        latent = pixels[::4, ::8, ::8].mean(dim=-1, keepdim=True).expand(-1, -1, -1, 16)
        return latent.movedim(-1, 0)[None]


def test_nodes_go_on_where_a_video_ends():
    sides = [["a", {}]], [["b", {}]]
    video, sound = torch.rand(20, 32, 48, 3), {"encoded_audio_all_layers": (numbers(1, 200, 4),) * 2, "audio_samples": 64000}
    given = {"width": 48, "height": 32, "length": 13, "batch_size": 1, "audio_encoder_output": sound}
    positive, negative, latent = WanSoundImageToVideo.execute(*sides, Autoencoder(), **given, ref_motion=video).args
    assert latent["samples"].shape == (1, 16, 4, 4, 6)
    motion = positive[0][1]["reference_motion"]
    assert motion.shape == (1, 16, 19, 4, 6) and (motion[0, 0, :13] == 0.5).all() and not (motion[0, 0, -1] == 0.5).any()
    assert positive[0][1]["audio_embed"].any() and not negative[0][1]["audio_embed"].any()
    further = WanSoundImageToVideoExtend.execute(
        *sides, Autoencoder(), length=13, video_latent={"samples": numbers(1, 16, 4, 4, 6)}, audio_encoder_output=sound
    ).args
    assert not torch.equal(further[0][0][1]["audio_embed"], positive[0][1]["audio_embed"])
    silent = WanHuMoImageToVideo.execute(*sides, Autoencoder(), width=48, height=32, length=13, batch_size=1).args
    assert silent[0][0][1]["audio_embed"].shape == (1, 5, 8, 5, 1280) and not silent[0][0][1]["reference_latents"][0].any()
