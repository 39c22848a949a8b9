"""Adaptive projected guidance (Sadat et al. 2024, arXiv:2410.02416): less of guidance along the prediction, bounded, with momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")

PICTURE = (-1, -2, -3)  # the dimensions of one picture


def project(v0: Tensor, v1: Tensor) -> tuple[Tensor, Tensor]:
    """The parts of *v0* (…×C×H×W) along *v1* and across it, per picture; they add up to *v0*."""
    direction = torch.nn.functional.normalize(v1, dim=PICTURE)
    along = (v0 * direction).sum(dim=PICTURE, keepdim=True) * direction
    return along, v0 - along


class ProjectedGuidance:
    """Changes both sides of a step before they are guided. Its running average starts anew when the noise level rises."""

    def __init__(self, eta: float, norm_threshold: float, momentum: float) -> None:
        self.eta, self.norm_threshold, self.momentum = eta, norm_threshold, momentum
        self._average: Tensor | None = None
        self._level: Tensor | None = None

    def __call__(self, args: dict[str, Any]) -> list[Tensor]:
        """The predictions, the positive one such that guidance makes the projected result of it."""
        pictures = args["conds_out"]
        if len(pictures) == 1:
            return pictures
        positive, negative, *others = pictures
        along, across = project(self._bounded(self._averaged(positive - negative, args["sigma"][0])), positive)
        scaled = (positive - negative) / args["cond_scale"]
        return [negative + across + self.eta * along + scaled, negative, *others]

    def patch_identity_key(self) -> tuple[float, float, float]:
        """Its settings: what it remembers of a sampling counts for no other."""
        return self.eta, self.norm_threshold, self.momentum

    def _averaged(self, guidance: Tensor, level: Tensor) -> Tensor:
        if self._level is not None and level > self._level or self._average is not None and self._average.shape != guidance.shape:
            self._average = None
        self._level = level
        if self.momentum == 0:
            return guidance
        self._average = guidance if self._average is None else self.momentum * self._average + guidance
        return self._average

    def _bounded(self, guidance: Tensor) -> Tensor:
        if self.norm_threshold <= 0:
            return guidance
        return guidance * (self.norm_threshold / guidance.norm(p=2, dim=PICTURE, keepdim=True)).clamp(max=1.0)


class APG(io.ComfyNode):
    """Guides a model by adaptive projection."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        texts = {
            "eta": "How much of the guidance along the prediction is kept; 1 keeps all, as plain guidance does.",
            "norm_threshold": "The longest that the guidance of a picture may be; 0 sets no bound.",
            "momentum": "How much of the guidance of the steps before is added; 0 adds nothing.",
        }
        bounds = {"eta": (1.0, -10.0, 10.0, 0.01), "norm_threshold": (5.0, 0.0, 50.0, 0.1), "momentum": (0.0, -5.0, 1.0, 0.01)}
        return model_patch_schema(
            "APG",
            "model/sampling/custom",
            *(
                io.Float.Input(name, default=default, min=lowest, max=highest, step=step, tooltip=texts[name], advanced=True)
                for name, (default, lowest, highest, step) in bounds.items()
            ),
            display_name="Adaptive Projected Guidance",
        )

    @classmethod
    def execute(cls, model: ModelPatcher, eta: float, norm_threshold: float, momentum: float) -> io.NodeOutput:
        """A clone of *model*."""
        clone = model.clone()
        clone.set_model_sampler_pre_cfg_function(ProjectedGuidance(eta, norm_threshold, momentum))
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(APG)
