"""Masks with levels, tuned schedules, perpendicular negative prompts and upscaling by a model."""

import math
from types import SimpleNamespace

import pytest
import torch

import comfy.model_management
import comfy.samplers
import comfy.utils
import folder_paths
from comfy_extras import nodes_upscale_model
from comfy_extras.chainner_models import upscale_loading
from comfy_extras.nodes_align_your_steps import NOISE_LEVELS, AlignYourStepsScheduler, loglinear_interp
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_perpneg import Guider_PerpNeg, PerpNeg, PerpNegGuider, perp_neg
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader


class Options:
    """A patcher that keeps what nodes set on it."""

    def __init__(self):
        self.functions = {}
        self.model_options = {}

    def clone(self):
        return Options()

    def __getattr__(self, name):
        return lambda function: self.functions.setdefault(name, function)


def linear_sampling():
    return SimpleNamespace(sigma_min=torch.tensor(0.0), timestep=lambda sigma: sigma)


@pytest.mark.parametrize(("strength", "expected"), [(1.0, [0, 0, 1, 1]), (0.0, [0, 0, 1, 1]), (0.5, [0, 0.125, 0.75, 1])])
def test_places_open_when_the_schedule_has_come_to_their_level(strength, expected):
    (changed,) = DifferentialDiffusion.execute(Options(), strength).args
    function = changed.functions["set_model_denoise_mask_function"]
    options = {
        "model": SimpleNamespace(inner_model=SimpleNamespace(model_sampling=linear_sampling())),
        "sigmas": torch.tensor([10.0, 4, 0]),
    }
    mask = torch.tensor([0, 0.25, 0.5, 1])
    assert function(torch.tensor([4.0]), mask, options).tolist() == pytest.approx(expected)


def test_tuned_schedules_hold_their_levels_and_end_with_zero():
    (sigmas,) = AlignYourStepsScheduler.execute("SDXL", 10, 1.0).args
    assert sigmas.tolist() == pytest.approx([*NOISE_LEVELS["SDXL"][:-1], 0.0])
    (tail,) = AlignYourStepsScheduler().get_sigmas("SD1", 10, 0.3)
    assert tail.tolist() == pytest.approx([*NOISE_LEVELS["SD1"][-4:-1], 0.0])
    assert AlignYourStepsScheduler.execute("SD1", 10, 0.0).args[0].numel() == 0
    (longer,) = AlignYourStepsScheduler.execute("SVD", 20, 1.0).args
    assert longer.shape == (21,) and longer[0] == 700 and longer[1].item() == pytest.approx(math.sqrt(700 * 54.5), rel=1e-5)


def test_levels_between_lie_on_lines_between_logarithms():
    assert loglinear_interp([100.0, 1.0], 3) == pytest.approx([100, 10, 1])
    assert loglinear_interp([8.0, 4.0, 2.0], 5) == pytest.approx([8, 32**0.5, 4, 8**0.5, 2])


def test_what_the_prompts_share_is_not_pushed_away():
    positive, shared, apart = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    empty = torch.zeros(2)
    assert perp_neg(empty, positive, shared, empty, 1.0, 3.0).tolist() == [6, 0]
    assert perp_neg(empty, positive, shared + apart, empty, 0.5, 3.0).tolist() == [6, -1.5]


def test_the_guider_computes_three_sides_at_once_and_calls_hooks(monkeypatch):
    asked = []

    def calc(model, conds, x, timestep, options):
        asked.append(conds)
        return [torch.tensor([value]) for value in (4.0, 1.0, 2.0)]

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", calc)
    (guider,) = PerpNegGuider.execute(Options(), [["p", {}]], [["n", {}]], [["e", {}]], 2.0, 1.0).args
    assert isinstance(guider, Guider_PerpNeg)
    assert guider.original_conds["empty_negative_prompt"][0]["prompt_type"] == "negative"
    guider.inner_model, guider.conds = None, {"positive": "p", "negative": "n", "empty_negative_prompt": "e"}
    x = torch.zeros(1)
    assert guider.predict_noise(x, x).item() == 2 + 2 * (2 - 0)
    seen = []
    hooks = {
        "sampler_pre_cfg_function": [lambda args: [args["conds_out"][0] * 10, *args["conds_out"][1:]]],
        "sampler_post_cfg_function": [lambda args: seen.append(args) or args["denoised"] + 1],
    }
    assert guider.predict_noise(x, x, hooks).item() == 2 + 2 * 38 + 1
    assert {"cond_denoised", "uncond_denoised", "empty_cond_denoised", "empty_cond", "cond_scale"} <= seen[0].keys()
    guider.set_cfg(1.0, 0.0)
    guider.predict_noise(x, x)
    assert asked == [["p", "n", "e"], ["p", "n", "e"], ["p", None, None]]


def test_the_older_node_replaces_guidance(monkeypatch):
    monkeypatch.setattr(comfy.samplers, "encode_model_conds", lambda function, conds, x, device, prompt_type: conds)
    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", lambda model, conds, x, sigma, options: [torch.tensor([2.0])])
    (changed,) = PerpNeg.execute(Options(), [["e", {}]], 1.0).args
    function = changed.functions["set_model_sampler_cfg_function"]
    args = {"input": torch.tensor([7.0]), "model": SimpleNamespace(extra_conds=None), "sigma": None, "model_options": {}, "cond_scale": 2.0}
    assert function({**args, "cond_denoised": torch.tensor([4.0]), "uncond_denoised": torch.tensor([1.0])}).item() == 7 - 6


class Doubling:
    """An upscaling model that repeats pixels."""

    scale = 2

    def __init__(self, largest=10**9):
        self.patcher = SimpleNamespace(load_device=torch.device("cpu"))
        self.largest = largest

    def __call__(self, pictures):
        if pictures.shape[-1] > self.largest:
            raise comfy.model_management.OOM_EXCEPTION("too large")
        return pictures.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("largest", [10**9, 260])
def test_pictures_are_enlarged_in_tiles_that_fit(monkeypatch, largest):
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda *args, **kwargs: None)
    image = torch.rand(1, 20, 600, 3, generator=torch.Generator().manual_seed(1))
    (large,) = ImageUpscaleWithModel.execute(Doubling(largest), image).args
    assert large.shape == (1, 40, 1200, 3)
    assert torch.allclose(large, image.repeat_interleave(2, 1).repeat_interleave(2, 2), atol=1e-5)
    with pytest.raises(comfy.model_management.OOM_EXCEPTION):
        ImageUpscaleWithModel.upscale(Doubling(10), image)


def test_a_model_is_loaded_without_the_prefix_of_its_training(monkeypatch, tmp_path):
    class Descriptor:
        model = torch.nn.Linear(1, 1)

    given = []
    mark = upscale_loading.MARK_OF_TRAINING
    torch.save({mark: torch.ones(1), "module.other": torch.ones(2)}, tmp_path / "a")
    monkeypatch.setattr(nodes_upscale_model, "spandrel", SimpleNamespace(ImageModelDescriptor=Descriptor))
    monkeypatch.setattr(upscale_loading, "load_state_dict", lambda weights: given.append(set(weights)) or Descriptor())
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: str(tmp_path / name))
    (model,) = UpscaleModelLoader.execute("a").args
    assert given == [{mark.removeprefix("module."), "other"}] and model.patcher.model is Descriptor.model
    monkeypatch.setattr(nodes_upscale_model, "upscale_loading", SimpleNamespace(load_upscale_model=lambda path: object()))
    with pytest.raises(ValueError, match="b is not a model for single pictures"):
        UpscaleModelLoader.load_model("b")
