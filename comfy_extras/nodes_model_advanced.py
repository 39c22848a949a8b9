"""Nodes that change how a model's output is interpreted, its noise schedule, and the scaling of guidance."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

import node_helpers
from comfy.lazy_import import lazy_module
from comfy.placeholders import placeholders
from comfy.residency.attention_asked import may_have_int8_attention
from comfy_extras.node_inputs import pixels, real

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")
attention_functions = lazy_module("comfy.ldm.modules.attention")
kinds = lazy_module("comfy.model_sampling")
distilled = lazy_module("comfy.sampling.distilled")
latent_formats = lazy_module("comfy.latent_formats")
patching = lazy_module("comfy.patching.patched_models")

log = logging.getLogger(__name__)

CATEGORY = "model/patch"
SHORT_SEQUENCE, LONG_SEQUENCE = 256, 4096  # the numbers of tokens for Flux's two shifts
PIXELS_PER_TOKEN = 16 * 16

_not_here, _ = placeholders(__name__, "Stable Cascade models", "ModelSamplingStableCascade:object")


def __getattr__(name: str) -> Any:
    """Return the classes that packs import from here. Raises ``AttributeError`` for other names."""
    if name in ("LCM", "ModelSamplingDiscreteDistilled"):
        return getattr(distilled, name)
    if name == "rescale_zero_terminal_snr_sigmas":
        return kinds.rescale_zero_terminal_snr_sigmas
    if name == "ModelSamplingStableCascade":
        return _not_here(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _with_sampling(model: ModelPatcher, schedule: type, prediction: type, *arguments: Any, **parameters: Any) -> ModelPatcher:
    """A clone of *model* whose sampling object derives from both classes.

    *arguments* go to its constructor, *parameters* to its ``set_parameters``.
    """

    def build(clone: ModelPatcher) -> None:
        sampling = type("ModelSamplingAdvanced", (schedule, prediction), {})(clone.model.model_config, *arguments)
        if parameters:
            sampling.set_parameters(**parameters)
        clone.add_object_patch("model_sampling", sampling)

    return patching.patched_models().patched(model, (), build)


def _sigma(default: float) -> tuple[str, dict[str, Any]]:
    return real(default, 0.0, 1000.0, 0.001, round=False, advanced=True)


class _ModelPatch:
    """Attributes that these nodes share."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = CATEGORY


class ModelSamplingDiscrete(_ModelPatch):
    """Sets what a model with the discrete schedule predicts."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "sampling": (["eps", "v_prediction", "lcm", "x0", "img_to_img", "img_to_img_flow"],),
                "zsnr": ("BOOLEAN", {"default": False, "advanced": True}),
            }
        }

    def patch(self, model: ModelPatcher, sampling: str, zsnr: bool) -> tuple[ModelPatcher]:
        """A clone whose output is interpreted as *sampling*; with *zsnr* its noisiest step contains no signal."""
        if sampling == "lcm":
            return (_with_sampling(model, distilled.ModelSamplingDiscreteDistilled, distilled.LCM, zsnr),)
        names = {"eps": "EPS", "v_prediction": "V_PREDICTION", "x0": "X0", "img_to_img": "IMG_TO_IMG", "img_to_img_flow": "IMG_TO_IMG_FLOW"}
        return (_with_sampling(model, kinds.ModelSamplingDiscrete, getattr(kinds, names[sampling]), zsnr),)


class ModelSamplingContinuousEDM(_ModelPatch):
    """Sets a continuous schedule for a model."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "sampling": (["v_prediction", "edm", "edm_playground_v2.5", "eps", "cosmos_rflow"],),
                "sigma_max": _sigma(120.0),
                "sigma_min": _sigma(0.002),
            }
        }

    def patch(self, model: ModelPatcher, sampling: str, sigma_max: float, sigma_min: float) -> tuple[ModelPatcher]:
        """A clone with that range of sigmas whose output is interpreted as *sampling*."""
        is_edm = sampling.startswith("edm")
        others = {"eps": kinds.EPS, "v_prediction": kinds.V_PREDICTION, "cosmos_rflow": kinds.COSMOS_RFLOW}
        prediction = kinds.EDM if is_edm else others[sampling]
        levels = kinds.ModelSamplingCosmosRFlow if sampling == "cosmos_rflow" else kinds.ModelSamplingContinuousEDM
        patched = _with_sampling(model, levels, prediction, sigma_min=sigma_min, sigma_max=sigma_max, sigma_data=0.5 if is_edm else 1.0)
        if sampling == "edm_playground_v2.5":
            patched.add_object_patch("latent_format", latent_formats.SDXL_Playground_2_5())
        return (patched,)


class ModelSamplingContinuousV(_ModelPatch):
    """Sets a continuous schedule for a model that predicts velocity."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "sampling": (["v_prediction"],), "sigma_max": _sigma(500.0), "sigma_min": _sigma(0.03)}}

    def patch(self, model: ModelPatcher, sampling: str, sigma_max: float, sigma_min: float) -> tuple[ModelPatcher]:
        """A clone with that range of sigmas."""
        return (
            _with_sampling(
                model, kinds.ModelSamplingContinuousV, kinds.V_PREDICTION, sigma_min=sigma_min, sigma_max=sigma_max, sigma_data=1.0
            ),
        )


class ModelSamplingSD3(_ModelPatch):
    """Shifts the schedule of a rectified flow model."""

    CATEGORY = "model/patch/stable diffusion"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "shift": real(3.0, 0.0, 100.0)}}

    def patch(self, model: ModelPatcher, shift: float, multiplier: Any = 1000) -> tuple[ModelPatcher]:
        """A clone that is a flow with *shift*; its time input is multiplied by *multiplier*."""
        return (_with_sampling(model, kinds.ModelSamplingDiscreteFlow, kinds.CONST, shift=shift, multiplier=multiplier),)


class ModelSamplingAuraFlow(ModelSamplingSD3):
    """Shifts the schedule of a rectified flow model whose time input is the flow time itself."""

    FUNCTION = "patch_aura"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "shift": real(1.73, 0.0, 100.0)}}

    def patch_aura(self, model: ModelPatcher, shift: float) -> tuple[ModelPatcher]:
        """A clone that is a flow with *shift*."""
        return self.patch(model, shift, multiplier=1.0)


class ModelSamplingFlux(_ModelPatch):
    """Shifts the schedule by the size of the picture, as Flux was trained."""

    CATEGORY = "model/patch/flux"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL",),
                "max_shift": real(1.15, 0.0, 100.0, advanced=True),
                "base_shift": real(0.5, 0.0, 100.0, advanced=True),
                "width": pixels(1024, 16, 8),
                "height": pixels(1024, 16, 8),
            }
        }

    def patch(self, model: ModelPatcher, max_shift: float, base_shift: float, width: int, height: int) -> tuple[ModelPatcher]:
        """A clone whose shift lies on the line through both shifts at their numbers of tokens."""
        slope = (max_shift - base_shift) / (LONG_SEQUENCE - SHORT_SEQUENCE)
        shift = base_shift + (width * height / PIXELS_PER_TOKEN - SHORT_SEQUENCE) * slope
        return (_with_sampling(model, kinds.ModelSamplingFlux, kinds.CONST, shift=shift),)


class RescaleCFG(_ModelPatch):
    """Rescales a guided prediction to the deviation of the conditioned one (Lin et al. 2023, arXiv:2305.08891, section 3.4)."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "multiplier": real(0.7, 0.0, 1.0)}}

    def patch(self, model: ModelPatcher, multiplier: float) -> tuple[ModelPatcher]:
        """A clone that rescales guidance by the share *multiplier*, with its prediction converted to velocity."""

        def rescaled(arguments: dict[str, Any]) -> Any:
            x = arguments["input"]
            sigma = arguments["sigma"].reshape(-1, *[1] * (x.ndim - 1))
            variance = sigma**2 + 1.0
            signal, deviation = x / variance, variance**0.5

            def velocity(noise_part: Any) -> Any:
                return (signal - (x - noise_part)) * deviation / sigma

            cond, uncond = velocity(arguments["cond"]), velocity(arguments["uncond"])
            guided = uncond + arguments["cond_scale"] * (cond - uncond)
            dims = tuple(range(1, x.ndim))
            rescale = cond.std(dim=dims, keepdim=True) / guided.std(dim=dims, keepdim=True)
            guided = guided * (multiplier * rescale + (1.0 - multiplier))
            return x - (signal - guided * sigma / deviation)

        clone = model.clone()
        clone.set_model_sampler_cfg_function(rescaled)
        return (clone,)


class ModelNoiseScale(_ModelPatch):
    """Sets how strong the noise is that a flow model was trained with."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "The noise's standard deviation in training, such as 8 for HiDream-O1 base and 7.5 for its dev version."
        return {"required": {"model": ("MODEL",), "noise_scale": real(1.0, 0.0, 64.0, tooltip=tooltip)}}

    def patch(self, model: ModelPatcher, noise_scale: float) -> tuple[ModelPatcher]:
        """A clone with that noise. Raises ``ValueError`` for a model that is no rectified flow with a shift."""
        original = model.get_model_object("model_sampling")
        if not isinstance(original, kinds.ModelSamplingDiscreteFlow):
            raise ValueError(
                f"ModelNoiseScale changes rectified flows; the model's schedule is a {type(original).__name__}. "
                "Take the node out, or put a ModelSamplingSD3 node before it"
            )

        def build(clone: ModelPatcher) -> None:
            sampling = type(original)(clone.model.model_config)
            sampling.set_parameters(shift=original.shift, multiplier=original.multiplier)
            sampling.set_noise_scale(noise_scale)
            clone.add_object_patch("model_sampling", sampling)

        return (patching.patched_models().patched(model, (noise_scale,), build),)


class ModelAttentionBackend(_ModelPatch):
    """Sets the function that computes a model's attention."""

    BACKENDS: ClassVar[dict[str, str]] = {"pytorch attention": "pytorch", "comfy kitchen attention": "comfy_kitchen_int8"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        offered = [*cls.BACKENDS] if may_have_int8_attention() else ["pytorch attention"]
        return {"required": {"model": ("MODEL",), "attention": (offered,)}}

    @classmethod
    def VALIDATE_INPUTS(cls, attention: str) -> bool:
        """Any name: workflows of other machines may hold one that is not offered here."""
        return True

    def patch(self, model: ModelPatcher, attention: str) -> tuple[ModelPatcher]:
        """A clone that computes attention so; one that is not here is replaced by PyTorch's, with a warning."""
        function = attention_functions.get_attention_function(self.BACKENDS.get(attention, ""), None)
        if function is None:
            log.warning("the attention %r is not here; PyTorch's is used", attention)
            function = attention_functions.get_attention_function("pytorch")
        clone = model.clone()
        clone.set_model_optimized_attention(function)
        return (clone,)


class ModelComputeDtype(_ModelPatch):
    """Sets the dtype that a model computes in."""

    CATEGORY = "advanced/debug"
    SEARCH_ALIASES = ["model precision", "change dtype"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "dtype": (["default", "fp32", "fp16", "bf16"], {"advanced": True})}}

    def patch(self, model: ModelPatcher, dtype: str) -> tuple[ModelPatcher]:
        """A clone that computes in *dtype*."""
        clone = model.clone()
        clone.set_model_compute_dtype(node_helpers.string_to_torch_dtype(dtype))
        return (clone,)


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        ModelSamplingDiscrete,
        ModelSamplingContinuousEDM,
        ModelSamplingContinuousV,
        ModelSamplingSD3,
        ModelSamplingAuraFlow,
        ModelSamplingFlux,
        ModelNoiseScale,
        RescaleCFG,
        ModelComputeDtype,
        ModelAttentionBackend,
    )
}
