"""What the sampler asks of a model: conditioning, inpainting channels, memory, saving."""

import pytest
import torch

import comfy.model_management
from benchmarks.make_checkpoint import family
from comfy import conds, model_base, supported_models
from comfy.families.timestep_embedding import timestep_embedding


def model_of(name, channels=4):
    config = {**family(name, 12 if name == "sdxl-refiner" else 10).unet.as_dict(), "in_channels": channels}
    kind = next(kind for kind in supported_models.models if kind.matches(config))
    return kind(config).get_model({})


def test_apply_model_scales_casts_and_denoises(monkeypatch):
    model = model_of("sd15")
    seen = {}

    def network(x, timesteps, context=None, control=None, transformer_options=None, **extra):
        seen.update(x=x, timesteps=timesteps, context=context, control=control, options=transformer_options, **extra)
        return torch.full_like(x, 0.5)

    monkeypatch.setattr(model.diffusion_model, "forward", network)
    x, sigma, options = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 1.0]), {"a": 1}
    result = model.apply_model(
        x,
        sigma,
        c_crossattn=torch.ones(2, 3, 64).double(),
        control={"output": []},
        transformer_options=options,
        extra=torch.tensor([1]),
        several=[torch.ones(1).half(), "text"],
    )
    torch.testing.assert_close(seen["x"], x / (sigma.view(2, 1, 1, 1) ** 2 + 1) ** 0.5)
    torch.testing.assert_close(result, x - 0.5 * sigma.view(2, 1, 1, 1))
    assert seen["context"].dtype is torch.float32 and seen["extra"].dtype is torch.int64 and seen["control"] == {"output": []}
    assert seen["several"][0].dtype is torch.float32 and seen["several"][1] == "text"
    assert seen["options"] == options and seen["options"] is not options
    assert seen["timesteps"].tolist() == model.model_sampling.timestep(sigma).float().tolist()


def test_extra_channels_are_appended(monkeypatch):
    model = model_of("sd15", 9)
    monkeypatch.setattr(model.diffusion_model, "forward", lambda x, *rest, **extra: x[:, :4] * 0 + x.shape[1])
    x = torch.randn(1, 4, 8, 8)
    result = model.apply_model(x, torch.tensor([1.0]), c_concat=torch.zeros(1, 5, 8, 8))
    torch.testing.assert_close(result, x - 9)


def test_sdxl_conditioning_is_pooled_text_and_sizes():
    model = model_of("sdxl")
    pooled = torch.randn(2, 96)
    vector = model.encode_adm(pooled_output=pooled, width=640, height=512, crop_w=8, crop_h=4, target_width=320)
    assert vector.shape == (2, model.adm_channels) and torch.equal(vector[:, :96], pooled)
    sizes = torch.tensor([512.0, 640.0, 4.0, 8.0, 512.0, 320.0])
    torch.testing.assert_close(vector[0, 96:].view(6, 256), timestep_embedding(sizes, 256))


@pytest.mark.parametrize(("values", "score"), [({}, 6), ({"prompt_type": "negative"}, 2.5), ({"aesthetic_score": 4}, 4)])
def test_the_refiner_is_told_an_aesthetic_score(values, score):
    vector = model_of("sdxl-refiner").encode_adm(pooled_output=torch.zeros(1, 96), **values)
    torch.testing.assert_close(vector[0, -256:], timestep_embedding(torch.tensor([float(score)]), 256)[0])


def test_conditioning_is_collected_by_kind():
    context = torch.zeros(1, 3, 64)
    found = model_of("sd15").extra_conds(cross_attn=context, cross_attn_controlnet=context, noise_concat=torch.zeros(1, 1, 8, 8))
    assert type(found["c_crossattn"]) is conds.CONDCrossAttn and type(found["crossattn_controlnet"]) is conds.CONDCrossAttn
    assert type(found["c_concat"]) is conds.CONDNoiseShape and "y" not in found
    assert type(model_of("sdxl").extra_conds(pooled_output=torch.zeros(1, 96))["y"]) is conds.CONDRegular


def test_inpainting_channels_come_from_mask_and_picture():
    model = model_of("sd15", 9)
    noise, latent = torch.randn(2, 4, 8, 8), torch.randn(1, 4, 8, 8)
    mask = torch.rand(1, 1, 16, 16)
    concat = model.concat_cond(noise=noise, device="cpu", concat_latent_image=latent, denoise_mask=mask)
    assert concat.shape == (2, 5, 8, 8) and set(concat[:, 0].unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(concat[:, 1:], (latent * 0.18215).expand(2, -1, -1, -1))
    blank = model.concat_cond(noise=noise, device="cpu", latent_image=latent)
    assert torch.equal(blank[:, :1], torch.ones(2, 1, 8, 8)) and blank[0, 1].unique().tolist() == [pytest.approx(0.8223)]
    other = model.concat_cond(noise=noise, device="cpu", concat_latent_image=torch.randn(1, 4, 6, 10), denoise_mask=mask[0])
    assert other.shape == (2, 5, 8, 8)
    model.concat_keys = ("mask_inverted", "concat_image")
    inverted = model.concat_cond(noise=noise, device="cpu", concat_latent_image=latent, denoise_mask=mask)
    torch.testing.assert_close(inverted[:, 0], 1 - concat[:, 0])
    model.concat_keys = ("depth",)
    with pytest.raises(ValueError, match="depth"):
        model.concat_cond(noise=noise, device="cpu", latent_image=latent)
    assert model_of("sd15").concat_cond(noise=noise, device="cpu") is None


def test_memory_grows_with_the_batch_area_and_listed_conditioning():
    model = model_of("sd15")
    one = model.memory_required([1, 4, 64, 64])
    assert model.memory_required([2, 4, 64, 64]) == 2 * one and model.memory_required([1, 4, 128, 64]) == 2 * one
    model.memory_usage_factor_conds = ("context",)
    assert model.memory_required([1, 4, 64, 64], {"context": [[1, 4, 64, 64]]}) == 2 * one
    assert model.memory_required([1, 4, 64, 64], {}) == one


def test_latents_are_scaled_both_ways_and_kept_parts_get_noise():
    model = model_of("sd15")
    latent, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(model.process_latent_out(model.process_latent_in(latent)), latent)
    kept = model.scale_latent_inpaint(torch.tensor([2.0, 2.0]), noise, latent)
    torch.testing.assert_close(kept, latent + 2 * noise)


def test_velocity_models_are_marked_when_saved():
    config = family("sd15", 10).unet.as_dict()
    model = supported_models.SD15(config, {"prediction": "v_prediction"}).get_model({})
    saved = model.state_dict_for_saving({"a": torch.ones(1)}, vae_state_dict={"b": torch.ones(1)})
    assert set(saved) == {"model.diffusion_model.a", "first_stage_model.b", "v_pred"}


def test_sampling_types_without_a_family_are_refused():
    with pytest.raises(ValueError, match="STABLE_CASCADE"):
        model_base.model_sampling(supported_models.SD15({}), model_base.ModelType.STABLE_CASCADE)
    assert comfy.model_base.ModelType.V_PREDICTION.value == 2
