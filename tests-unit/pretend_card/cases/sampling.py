"""Samplers, schedulers, guiders, noise, masks."""

from __future__ import annotations

from typing import Any

import torch
from engine import Engine

import comfy.samplers
from cases.registry import case

SCHEDULERS = list(comfy.samplers.SCHEDULER_NAMES)
QUICK_SAMPLERS = {"euler", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "uni_pc"}


def _sampler(sampler: str, scheduler: str) -> None:
    apart = 0 if sampler.endswith("_gpu") else 1

    @case(f"sampler {sampler}, {scheduler}", apart, quick=sampler in QUICK_SAMPLERS and scheduler == "karras")
    def run(e: Engine) -> Any:
        model, _, _, positive, negative = e.parts()
        return e.sample(model, positive, negative, sampler_name=sampler, scheduler=scheduler, steps=4)


for _number, _name in enumerate(comfy.samplers.SAMPLER_NAMES):
    _sampler(_name, "karras")
    if SCHEDULERS[_number % len(SCHEDULERS)] != "karras":
        _sampler(_name, SCHEDULERS[_number % len(SCHEDULERS)])


def _masked(sampler: str) -> None:
    @case(f"inpainting {sampler}")
    def run(e: Engine) -> Any:
        model, _, vae, positive, negative = e.parts()
        latent = e.first("VAEEncode", pixels=e.picture(), vae=vae)
        latent = e.first("SetLatentNoiseMask", samples=latent, mask=e.mask())
        return e.sample(model, positive, negative, latent, denoise=0.8, sampler_name=sampler)


for _name in ("euler", "ddim", "uni_pc", "dpmpp_2m_sde", "lcm"):
    _masked(_name)


@case("picture to picture", quick=True)
def picture_to_picture(e: Engine) -> Any:
    model, _, vae, positive, negative = e.parts()
    latent = e.first("VAEEncode", pixels=e.picture(batch=2), vae=vae)
    samples = e.sample(model, positive, negative, latent, denoise=0.6, sampler_name="dpmpp_2m")
    return latent, samples, e.node("VAEDecode", samples={"samples": samples}, vae=vae)


@case("inpainting by the autoencoder")
def inpaint_encoded(e: Engine) -> Any:
    model, _, vae, positive, negative = e.parts()
    made = []
    for grow in (0, 6):
        latent = e.first("VAEEncodeForInpaint", pixels=e.picture(), vae=vae, mask=e.mask(), grow_mask_by=grow)
        made.append((latent, e.sample(model, positive, negative, latent)))
    return made


@case("inpainting by conditioning")
def inpaint_conditioned(e: Engine) -> Any:
    model, _, vae, positive, negative = e.parts()
    inputs = {"positive": positive, "negative": negative, "vae": vae, "pixels": e.picture(), "mask": e.mask(), "noise_mask": True}
    positive, negative, latent = e.node("InpaintModelConditioning", **inputs)
    return latent, e.sample(model, positive, negative, latent, denoise=0.9)


@case("two stages of KSamplerAdvanced")
def two_stages(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    fixed = {
        "model": model,
        "noise_seed": 4,
        "steps": 5,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "karras",
        "positive": positive,
        "negative": negative,
    }
    first = e.first(
        "KSamplerAdvanced",
        **fixed,
        add_noise="enable",
        latent_image=e.latent(),
        start_at_step=0,
        end_at_step=2,
        return_with_leftover_noise="enable",
    )
    second = {
        "add_noise": "disable",
        "latent_image": first,
        "start_at_step": 2,
        "end_at_step": 1000,
        "return_with_leftover_noise": "disable",
    }
    return first, e.node("KSamplerAdvanced", **fixed, **second)


@case("one latent of a batch")
def of_a_batch(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    return e.sample(model, positive, negative, e.first("LatentFromBatch", samples=e.latent(batch=4), batch_index=2, length=1))


@case("no guidance")
def no_guidance(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    return e.sample(model, positive, negative, cfg=1.0)


def guided(e: Engine, guider: Any, sampler: Any = None, sigmas: torch.Tensor | None = None, latent: Any = None, noise: Any = None) -> Any:
    """What SamplerCustomAdvanced makes."""
    model = e.checkpoint()[0]
    return e.node(
        "SamplerCustomAdvanced",
        noise=noise or e.first("RandomNoise", noise_seed=3),
        guider=guider,
        sampler=sampler or e.first("KSamplerSelect", sampler_name="euler"),
        sigmas=e.first("BasicScheduler", model=model, scheduler="karras", steps=3, denoise=1.0) if sigmas is None else sigmas,
        latent_image=latent or e.latent(),
    )


@case("guiders", quick=True)
def guiders(e: Engine) -> Any:
    model, clip, vae, positive, negative = e.parts()
    second = e.text(clip, "a circle")
    dual = {"model": model, "cond1": positive, "cond2": second, "negative": negative, "cfg_conds": 4.0, "cfg_cond2_negative": 2.0}
    made = [guided(e, e.first("BasicGuider", model=model, conditioning=positive))]
    made += [guided(e, e.first("DualCFGGuider", **dual, style=style)) for style in ("regular", "nested")]
    encoded = e.first("VAEEncode", pixels=e.picture(), vae=vae)
    latent = e.first("SetLatentNoiseMask", samples=encoded, mask=e.mask())
    return made, guided(e, e.first("CFGGuider", model=model, positive=positive, negative=negative, cfg=4.0), latent=latent)


@case("SamplerCustom, AddNoise, DisableNoise")
def noise_nodes(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    sigmas = e.first("BasicScheduler", model=model, scheduler="normal", steps=3, denoise=1.0)
    sampler = e.first("KSamplerSelect", sampler_name="dpmpp_2m")
    fixed = {"model": model, "noise_seed": 3, "cfg": 4.0, "positive": positive, "negative": negative, "sampler": sampler, "sigmas": sigmas}
    first = e.node("SamplerCustom", **fixed, add_noise=True, latent_image=e.latent())
    noisy = e.first("AddNoise", model=model, noise=e.first("RandomNoise", noise_seed=8), sigmas=sigmas, latent_image=first[0])
    second = e.node("SamplerCustom", **fixed, add_noise=False, latent_image=noisy)
    guider = e.first("BasicGuider", model=model, conditioning=positive)
    return first, noisy, second, guided(e, guider, sampler, sigmas, noisy, e.first("DisableNoise"))


SIGMAS: dict[str, dict[str, Any]] = {
    "KarrasScheduler": {"steps": 4, "sigma_max": 14.0, "sigma_min": 0.03, "rho": 7.0},
    "ExponentialScheduler": {"steps": 4, "sigma_max": 14.0, "sigma_min": 0.03},
    "PolyexponentialScheduler": {"steps": 4, "sigma_max": 14.0, "sigma_min": 0.03, "rho": 1.0},
    "LaplaceScheduler": {"steps": 4, "sigma_max": 14.0, "sigma_min": 0.03, "mu": 0.0, "beta": 0.5},
    "VPScheduler": {"steps": 4, "beta_d": 19.9, "beta_min": 0.1, "eps_s": 0.001},
    "BetaSamplingScheduler": {"model": None, "steps": 4, "alpha": 0.6, "beta": 0.6},
    "SDTurboScheduler": {"model": None, "steps": 2, "denoise": 1.0},
    "ManualSigmas": {"sigmas": "14, 7.5, 2.0, 0.5, 0"},
}


@case("nodes that make sigmas")
def sigma_nodes(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    guider = e.first("CFGGuider", model=model, positive=positive, negative=negative, cfg=4.0)
    made = []
    for name, inputs in SIGMAS.items():
        sigmas = e.first(name, **{key: model if key == "model" else value for key, value in inputs.items()})
        made.append((sigmas, guided(e, guider, sigmas=sigmas)))
    return made


@case("nodes that change sigmas")
def changed_sigmas(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    sigmas = e.first("KarrasScheduler", steps=6, sigma_max=14.0, sigma_min=0.03, rho=7.0)
    high, low = e.node("SplitSigmas", sigmas=sigmas, step=3)
    longer = e.first("ExtendIntermediateSigmas", sigmas=sigmas, steps=2, start_at_sigma=-1.0, end_at_sigma=1.0, spacing="cosine")
    guider = e.first("CFGGuider", model=model, positive=positive, negative=negative, cfg=4.0)
    first = guided(e, guider, sigmas=high)
    second = guided(e, guider, sigmas=low, latent=first[0], noise=e.first("DisableNoise"))
    others = e.node("SplitSigmasDenoise", sigmas=sigmas, denoise=0.6), e.node("FlipSigmas", sigmas=sigmas)
    return first, second, others, e.node("SetFirstSigma", sigmas=sigmas, sigma=10.0), guided(e, guider, sigmas=longer)


SAMPLERS: dict[str, dict[str, Any]] = {
    "SamplerEulerAncestral": {"eta": 1.0, "s_noise": 1.0},
    "SamplerDPMPP_2S_Ancestral": {"eta": 1.0, "s_noise": 1.0},
    "SamplerLMS": {"order": 3},
    "SamplerDPMPP_3M_SDE": {"eta": 1.0, "s_noise": 1.0, "noise_device": "cpu"},
    "SamplerDPMPP_2M_SDE": {"solver_type": "heun", "eta": 1.0, "s_noise": 1.0, "noise_device": "cpu"},
    "SamplerDPMPP_SDE": {"eta": 1.0, "s_noise": 1.0, "r": 0.5, "noise_device": "cpu"},
}


@case("nodes that make samplers")
def sampler_nodes(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    guider = e.first("CFGGuider", model=model, positive=positive, negative=negative, cfg=4.0)
    return [guided(e, guider, e.first(name, **inputs)) for name, inputs in SAMPLERS.items()]


@case("samplers with noise of the card", apart=0)
def card_noise(e: Engine) -> Any:
    model, _, _, positive, negative = e.parts()
    guider = e.first("CFGGuider", model=model, positive=positive, negative=negative, cfg=4.0)
    wanted = {name: inputs for name, inputs in SAMPLERS.items() if "noise_device" in inputs}
    return [guided(e, guider, e.first(name, **{**inputs, "noise_device": "gpu"})) for name, inputs in wanted.items()]
