from types import SimpleNamespace

import pytest
import torch

import comfy.latent_formats
import comfy.model_sampling
import comfy.sampling.distilled
from comfy_extras import nodes_freelunch, nodes_model_advanced


class Model:
    """Collects what is patched onto its clones."""

    def __init__(self):
        self.model = SimpleNamespace(model_config=SimpleNamespace(sampling_settings={}, unet_config={"model_channels": 2}))
        self.objects, self.patches, self.cfg, self.dtype = {}, [], None, None

    def clone(self):
        return Model()

    def add_object_patch(self, name, value):
        self.objects[name] = value

    def set_model_output_block_patch(self, patch):
        self.patches.append(patch)

    def set_model_sampler_cfg_function(self, function):
        self.cfg = function

    def set_model_compute_dtype(self, dtype):
        self.dtype = dtype


def sampling_of(node, *arguments, method="patch"):
    (patched,) = getattr(node(), method)(Model(), *arguments)
    return patched.objects["model_sampling"]


@pytest.mark.parametrize(
    ("choice", "kind"),
    [("eps", "EPS"), ("v_prediction", "V_PREDICTION"), ("x0", "X0"), ("img_to_img", "IMG_TO_IMG"), ("img_to_img_flow", "IMG_TO_IMG_FLOW")],
)
def test_the_prediction_can_be_chosen(choice, kind):
    sampling = sampling_of(nodes_model_advanced.ModelSamplingDiscrete, choice, False)
    assert isinstance(sampling, getattr(comfy.model_sampling, kind))
    assert isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)


def test_zero_terminal_snr_leaves_no_signal():
    assert sampling_of(nodes_model_advanced.ModelSamplingDiscrete, "eps", True).sigma_max > 1000


def test_consistency_models_know_every_twentieth_step():
    sampling = sampling_of(nodes_model_advanced.ModelSamplingDiscrete, "lcm", False)
    full = comfy.model_sampling.ModelSamplingDiscrete()
    assert isinstance(sampling, comfy.sampling.distilled.LCM)
    assert sampling.sigmas.tolist() == full.sigmas[19::20].tolist()
    times = torch.tensor([19, 519, 999])
    assert sampling.timestep(full.sigmas[times]).tolist() == times.tolist()
    assert torch.allclose(sampling.sigma(times), full.sigmas[times])


def test_consistency_models_return_their_input_at_time_zero():
    sampling = comfy.sampling.distilled.LCM()
    sampling.timestep = torch.zeros_like
    x = torch.randn(1, 4, 2, 2)
    assert torch.allclose(sampling.calculate_denoised(torch.tensor([0.5]), torch.randn(1, 4, 2, 2), x), x)
    sampling.timestep = lambda sigma: torch.full_like(sigma, 999.0)
    noise = torch.randn(1, 4, 2, 2)
    assert torch.allclose(sampling.calculate_denoised(torch.tensor([2.0]), noise, x), x - 2 * noise, atol=1e-3)


def test_continuous_schedules_take_their_bounds():
    sampling = sampling_of(nodes_model_advanced.ModelSamplingContinuousEDM, "edm", 80.0, 0.01)
    assert (sampling.sigma_max.item(), sampling.sigma_min.item()) == pytest.approx((80.0, 0.01), rel=1e-4)
    assert sampling.sigma_data == 0.5
    velocity = sampling_of(nodes_model_advanced.ModelSamplingContinuousV, "v_prediction", 500.0, 0.03)
    assert isinstance(velocity, comfy.model_sampling.V_PREDICTION)
    (playground,) = nodes_model_advanced.ModelSamplingContinuousEDM().patch(Model(), "edm_playground_v2.5", 120.0, 0.002)
    assert isinstance(playground.objects["latent_format"], comfy.latent_formats.SDXL_Playground_2_5)
    flow = sampling_of(nodes_model_advanced.ModelSamplingContinuousEDM, "cosmos_rflow", 80.0, 0.002)
    assert isinstance(flow, comfy.model_sampling.COSMOS_RFLOW) and flow.sigma_data == 1.0
    assert flow.timestep(torch.tensor(3.0)).item() == pytest.approx(0.75) and flow.sigma(torch.tensor(0.75)).item() == pytest.approx(3.0)


def test_flows_are_shifted():
    assert sampling_of(nodes_model_advanced.ModelSamplingSD3, 3.0).sigma(torch.tensor(500.0)).item() == pytest.approx(0.75)
    aura = sampling_of(nodes_model_advanced.ModelSamplingAuraFlow, 3.0, method="patch_aura")
    assert aura.sigma(torch.tensor(0.5)).item() == pytest.approx(0.75)
    assert sampling_of(nodes_model_advanced.ModelSamplingFlux, 1.15, 0.5, 256, 256).shift == pytest.approx(0.5)
    assert sampling_of(nodes_model_advanced.ModelSamplingFlux, 1.15, 0.5, 1024, 1024).shift == pytest.approx(1.15)


def guided_by(multiplier, scale=5.0):
    x, cond, uncond = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    function = nodes_model_advanced.RescaleCFG().patch(Model(), multiplier)[0].cfg
    sigma = torch.tensor([2.0, 3.0])
    arguments = {"cond": cond, "uncond": uncond, "cond_scale": scale, "input": x, "sigma": sigma}
    return x, cond, uncond, sigma.view(2, 1, 1, 1), function(arguments)


def test_no_rescaling_is_plain_guidance():
    _, cond, uncond, _, guided = guided_by(0.0)
    assert torch.allclose(guided, uncond + 5.0 * (cond - uncond), atol=1e-4)


def test_full_rescaling_keeps_the_deviation_of_the_conditioned_velocity():
    x, cond, _, sigma, guided = guided_by(1.0)

    def velocity(noise_part):
        return (x / (sigma**2 + 1) - (x - noise_part)) * (sigma**2 + 1) ** 0.5 / sigma

    assert torch.allclose(velocity(guided).std(dim=(1, 2, 3)), velocity(cond).std(dim=(1, 2, 3)), rtol=1e-3)


def test_the_compute_dtype_is_set_on_a_clone():
    assert nodes_model_advanced.ModelComputeDtype().patch(Model(), "bf16")[0].dtype == torch.bfloat16
    assert nodes_model_advanced.ModelComputeDtype().patch(Model(), "default")[0].dtype is None


def test_classes_that_packs_import_are_there():
    assert nodes_model_advanced.LCM is comfy.sampling.distilled.LCM
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nodes_model_advanced.nothing  # noqa: B018 - the access is the test


def test_the_filter_scales_the_mean_and_keeps_fine_detail():
    detail = torch.tensor([1.0, -1.0]).repeat(8, 4).view(1, 1, 8, 8)
    filtered = nodes_freelunch.Fourier_filter(detail + 5.0, 1, 0.2)
    assert torch.allclose(filtered, detail + 1.0, atol=1e-5)


def freeu(node, channels, **factors):
    (patch,) = node.execute(Model(), **{"b1": 2.0, "b2": 3.0, "s1": 0.5, "s2": 0.25, **factors})[0].patches
    h = torch.arange(channels * 16.0).view(1, channels, 4, 4)
    return h.clone(), *patch(h, torch.ones(1, channels, 4, 4), {})


@pytest.mark.parametrize(("channels", "backbone", "skip"), [(8, 2.0, 0.5), (4, 3.0, 0.25), (2, 1.0, 1.0)])
def test_freeu_strengthens_half_of_the_channels_by_level(channels, backbone, skip):
    before, h, filtered = freeu(nodes_freelunch.FreeU, channels)
    half = channels // 2
    assert torch.allclose(h[:, :half], before[:, :half] * backbone)
    assert torch.equal(h[:, half:], before[:, half:])
    assert filtered.mean().item() == pytest.approx(skip)


def test_freeu_v2_strengthens_most_where_features_are_high():
    before, h, _ = freeu(nodes_freelunch.FreeU_V2, 8)
    gain = h[0, 1] / before[0, 1]
    assert gain.flatten()[0].item() == pytest.approx(1.0)
    assert gain.flatten()[-1].item() == pytest.approx(2.0)
    assert (gain.flatten().diff() > 0).all()


def test_devices_without_fourier_transforms_use_the_cpu(monkeypatch, caplog):
    original = nodes_freelunch.Fourier_filter
    calls = []

    def fails_first(x, threshold, scale):
        calls.append(x)
        if len(calls) == 1:
            raise RuntimeError("no fft here")
        return original(x, threshold, scale)

    monkeypatch.setattr(nodes_freelunch, "Fourier_filter", fails_first)
    skip_filter = nodes_freelunch.SkipFilter()
    for _ in range(2):
        assert skip_filter(torch.ones(1, 1, 4, 4), 0.5).mean().item() == pytest.approx(0.5)
    assert len(calls) == 3
    assert len(caplog.records) == 1
