"""Nodes that encode several texts, make empty latents, and make sigmas by a formula."""

import pytest
import torch

import comfy.model_sampling
from comfy_extras import (
    core_conditioning,
    empty_latents,
    gits_levels,
    nodes_chroma_radiance,
    nodes_cond,
    nodes_cosmos,
    nodes_flux,
    nodes_gits,
    nodes_hidream,
    nodes_hidream_o1,
    nodes_hunyuan,
    nodes_ideogram4,
    nodes_lt,
    nodes_lumina2,
    nodes_mochi,
    nodes_model_advanced,
    nodes_pixart,
    nodes_sd3,
)


class Encoder:
    """A text encoder that gives back what it is given; one section of tokens for each 10 letters, at least one."""

    def __init__(self, *names):
        self.names = names

    def tokenize(self, text):
        return {name: [f"{name}:{text[start : start + 10]}" for start in range(0, max(1, len(text)), 10)] for name in self.names}

    def encode_from_tokens_scheduled(self, tokens, add_dict=None):
        return [[tokens, add_dict or {}]]

    def encode_from_tokens(self, tokens, return_pooled=False):
        return tokens, "pooled"


def test_every_encoder_of_hidream_gets_its_text():
    (((tokens, _),),) = nodes_hidream.CLIPTextEncodeHiDream.execute(Encoder("l", "g", "t5xxl", "llama"), "one", "two", "three", "four").args
    assert tokens == {"l": ["l:one"], "g": ["g:two"], "t5xxl": ["t5xxl:three"], "llama": ["llama:four"]}
    with pytest.raises(ValueError, match="no part 'llama' .it has g, l, t5xxl."):
        nodes_hidream.CLIPTextEncodeHiDream.execute(Encoder("l", "g", "t5xxl"), "one", "two", "three", "four")


def sd3(clip_l, clip_g, t5xxl, empty_padding):
    return nodes_sd3.CLIPTextEncodeSD3.execute(Encoder("l", "g", "t5xxl"), clip_l, clip_g, t5xxl, empty_padding).args[0][0][0]


def test_sd3_pads_the_shorter_text():
    tokens = sd3("short", "a much longer text", "t", "none")
    assert tokens == {"l": ["l:short", "l:"], "g": ["g:a much lon", "g:ger text"], "t5xxl": ["t5xxl:t"]}
    assert len(sd3("a much longer text", "short", "t", "none")["g"]) == 2


def test_empty_texts_of_sd3_get_tokens_only_as_an_empty_prompt():
    assert sd3("", "", "", "none") == {"l": [], "g": [], "t5xxl": []}
    assert sd3("", "", "", "empty_prompt") == {"l": ["l:"], "g": ["g:"], "t5xxl": ["t5xxl:"]}
    assert sd3("", "text", "", "none") == {"l": ["l:"], "g": ["g:text"], "t5xxl": []}
    with pytest.raises(ValueError, match="no part 't5xxl'"):
        nodes_sd3.CLIPTextEncodeSD3.execute(Encoder("l", "g"), "a", "b", "c", "none")


def test_other_families_texts():
    (((tokens, _),),) = nodes_hunyuan.CLIPTextEncodeHunyuanDiT.execute(Encoder("hydit_clip", "mt5xl"), "one", "two").args
    assert tokens == {"hydit_clip": ["hydit_clip:one"], "mt5xl": ["mt5xl:two"]}
    (((tokens, sizes),),) = nodes_pixart.CLIPTextEncodePixArtAlpha.execute(Encoder("t5xxl"), 512, 768, "text").args
    assert tokens == {"t5xxl": ["t5xxl:text"]} and sizes == {"width": 512, "height": 768}
    (((tokens, _),),) = nodes_lumina2.CLIPTextEncodeLumina2.execute(Encoder("g"), "a cat", "alignment").args
    prompt = "".join(part.removeprefix("g:") for part in tokens["g"])
    assert prompt.startswith("You are an assistant designed to generate high-quality images with the highest degree of")
    assert prompt.endswith("based on textual prompts. <Prompt Start> a cat")
    with pytest.raises(RuntimeError, match="no text encoder"):
        nodes_lumina2.CLIPTextEncodeLumina2.execute(None, "a cat", "superior")


def test_control_may_have_a_text_of_its_own():
    before = [["states", {"pooled_output": 1}]]
    (((states, values),),) = nodes_cond.CLIPTextEncodeControlnet.execute(Encoder("l"), before, "lines").args
    assert states == "states" and values["cross_attn_controlnet"] == {"l": ["l:lines"]} and values["pooled_output_controlnet"] == "pooled"
    assert before[0][1] == {"pooled_output": 1}


def test_every_t5_of_a_clone_is_told_how_to_fill_up_prompts():
    class Text:
        def __init__(self):
            self.options = {}

        def clone(self):
            return Text()

        def set_tokenizer_option(self, name, value):
            self.options[name] = value

    before = Text()
    (changed,) = nodes_cond.T5TokenizerOptions.execute(before, 3, 7).args
    assert before.options == {} and len(changed.options) == 10
    assert changed.options["t5xxl_min_padding"] == 3 and changed.options["umt5xxl_min_length"] == 7


def test_conditioning_is_multiplied_with_its_pooled_text():
    before = [[torch.ones(1, 2, 3), {"pooled_output": torch.ones(1, 3), "strength": 0.5}], [torch.ones(1, 2, 3), {"area": 1}]]
    (result,) = core_conditioning.ConditioningMultiply().multiply(before, -2.0)
    assert result[0][0].eq(-2).all() and result[0][1]["pooled_output"].eq(-2).all() and result[0][1]["strength"] == 0.5
    assert result[1][0].eq(-2).all() and result[1][1] == {"area": 1} and before[0][0].eq(1).all()


@pytest.mark.parametrize(
    ("node", "sizes", "shape", "more"),
    [
        (nodes_flux.EmptyFlux2LatentImage, (1040, 512), (3, 128, 32, 65), {}),
        (nodes_hunyuan.EmptyHunyuanImageLatent, (2048, 1024), (3, 64, 32, 64), {}),
        (nodes_chroma_radiance.EmptyChromaRadianceLatentImage, (48, 32), (3, 3, 32, 48), {}),
        (nodes_hunyuan.EmptyHunyuanLatentVideo, (848, 480, 25), (3, 16, 7, 60, 106), {"downscale_ratio_spacial": 8}),
        (nodes_hunyuan.EmptyHunyuanVideo15Latent, (848, 480, 26), (3, 32, 7, 30, 53), {"downscale_ratio_spacial": 16}),
        (nodes_hidream_o1.EmptyHiDreamO1LatentImage, (96, 64), (3, 3, 64, 96), {}),
        (nodes_lt.EmptyLTXVLatentVideo, (768, 512, 97), (3, 128, 13, 16, 24), {"downscale_ratio_spacial": 32}),
        (nodes_mochi.EmptyMochiLatentVideo, (848, 480, 25), (3, 12, 5, 60, 106), {}),
        (nodes_cosmos.EmptyCosmosLatentVideo, (1280, 704, 121), (3, 16, 16, 88, 160), {}),
    ],
)
def test_empty_latents_are_zeros_of_the_familys_shape(node, sizes, shape, more):
    (latent,) = node.execute(*sizes, 3).args
    samples = latent.pop("samples")
    assert tuple(samples.shape) == shape and not samples.any() and latent == more


def test_sizes_are_inputs_in_order():
    inputs = empty_latents.size_inputs(640, 480, 16, length=(25, 1, 4), highest=2048, max_batch=8)
    assert [(one.id, one.default, one.min, one.max, one.step) for one in inputs] == [
        ("width", 640, 16, 2048, 16),
        ("height", 480, 16, 2048, 16),
        ("length", 25, 1, 2048, 4),
        ("batch_size", 1, 1, 8, None),
    ]


def test_flux2_shifts_times_by_size_and_steps():
    few, many = (nodes_flux.Flux2Scheduler.execute(steps, 1024, 1024).args[0] for steps in (10, 200))
    assert (len(few), few[0], few[-1]) == (11, 1.0, 0.0) and (few.diff() < 0).all()
    assert nodes_flux.compute_empirical_mu(4096, 10) == pytest.approx(8.73809524e-05 * 4096 + 1.89833333)
    assert nodes_flux.compute_empirical_mu(4096, 200) == pytest.approx(0.00016927 * 4096 + 0.45666666)
    assert nodes_flux.compute_empirical_mu(5000, 10) == nodes_flux.compute_empirical_mu(5000, 200)
    assert few[5] > many[100], "few steps stay longer at high noise"


def test_ideograms_times_spread_around_a_mean_that_grows_with_the_picture():
    small, large, wide = (nodes_ideogram4.ideogram4_sigmas(20, side, side, 0.0, std) for side, std in ((512, 1.0), (1024, 1.0), (512, 2.0)))
    assert small[10].item() == pytest.approx(0.5) and large[10].item() == pytest.approx(2 / 3, abs=1e-3)
    assert small[0] < 1 and small[-1] == 0 and (small.diff() <= 0).all()
    assert wide[5] > small[5] and wide[15] < small[15]
    assert len(nodes_ideogram4.Ideogram4Scheduler.execute(7, 512, 512, 0.0, 1.75).args[0]) == 8


def test_published_levels_descend_and_end_with_zero():
    for coeff in gits_levels.SCHEDULES:
        for steps in range(2, 21):
            levels = nodes_gits.published_levels(coeff, steps)
            assert len(levels) == steps + 1 and list(levels) == sorted(levels, reverse=True) and len(set(levels)) == len(levels)
    (sigmas,) = nodes_gits.GITSScheduler.execute(1.2, 10, 1.0).args
    assert sigmas[:-1].tolist() == pytest.approx(nodes_gits.published_levels(1.2, 10)[:-1]) and sigmas[-1] == 0


def test_more_steps_are_interpolated_and_shares_are_the_last_ones():
    (sigmas,) = nodes_gits.GITSScheduler.execute(1.2, 40, 1.0).args
    known = nodes_gits.published_levels(1.2, 20)
    assert len(sigmas) == 41 and sigmas[2].item() == pytest.approx(known[1], rel=1e-5)
    assert sigmas[1].item() == pytest.approx((known[0] * known[1]) ** 0.5, rel=1e-5)
    assert nodes_gits.GITSScheduler.execute(1.2, 40, 0.25).args[0].equal(sigmas[-11:])
    assert nodes_gits.GITSScheduler.execute(1.2, 10, 0.0).args[0].numel() == 0
    with pytest.raises(ValueError, match=r"0\.8, 0\.85"):
        nodes_gits.GITSScheduler.execute(0.83, 10, 1.0)


class Model:
    """A patcher that keeps what is patched onto its clones; its schedule is *sampling*."""

    def __init__(self, sampling):
        self.sampling, self.set = sampling, {}
        self.model = self
        self.model_config = type("Config", (), {"sampling_settings": {"shift": 2.0}})()

    def clone(self):
        return Model(self.sampling)

    def get_model_object(self, name):
        return self.sampling

    def add_object_patch(self, name, value):
        self.set[name] = value

    def set_model_optimized_attention(self, function):
        self.set["attention"] = function


@pytest.fixture
def unremembered(monkeypatch):
    class Registry:
        def patched(self, model, params, build):
            clone = model.clone()
            build(clone)
            return clone

    monkeypatch.setattr("comfy.patching.patched_models.patched_models", Registry)


def test_flows_may_be_trained_with_stronger_noise(unremembered):
    kind = type("Flow", (comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST), {})
    original = kind()
    original.set_parameters(shift=3.0, multiplier=1.0)
    (clone,) = nodes_model_advanced.ModelNoiseScale().patch(Model(original), 8.0)
    sampling = clone.set["model_sampling"]
    assert (type(sampling), sampling.shift, sampling.multiplier, sampling.noise_scale, original.noise_scale) == (kind, 3.0, 1.0, 8.0, 1.0)
    noise, picture = torch.ones(1, 2), torch.full((1, 2), 4.0)
    assert sampling.noise_scaling(torch.tensor([0.25]), noise, picture).tolist() == [[5.0, 5.0]]
    assert original.noise_scaling(torch.tensor([0.25]), noise, picture).tolist() == [[3.25, 3.25]]
    with pytest.raises(ValueError, match="rectified flows"):
        nodes_model_advanced.ModelNoiseScale().patch(Model(comfy.model_sampling.ModelSamplingDiscrete()), 8.0)


def test_attention_that_is_not_here_is_replaced_with_a_warning(caplog):
    from comfy.ldm.modules.attention import attention_pytorch

    node = nodes_model_advanced.ModelAttentionBackend()
    assert node.patch(Model(None), "pytorch attention")[0].set["attention"] is attention_pytorch and not caplog.text
    assert node.patch(Model(None), "comfy kitchen attention")[0].set["attention"] is attention_pytorch
    assert "comfy kitchen attention" in caplog.text and node.VALIDATE_INPUTS("anything") is True
