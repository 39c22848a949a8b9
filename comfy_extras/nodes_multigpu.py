"""Nodes that choose the device on which a model, a text encoder or an autoencoder is computed."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from comfy import model_management
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

log = logging.getLogger(__name__)

CATEGORY = "advanced/multigpu"
DEFAULT, CPU = "default", "cpu"


def place(patcher: ModelPatcher, choice: str, what: str, rest_device: Any = None) -> bool:
    """Let *patcher*, a clone, be computed on the device of *choice*; False, with a line in the log, when it is not here.

    ``default`` is the loader's choice. Weights rest where the loader had them (on *rest_device* if that is given), with ``cpu`` there. All
    clones share them: what is loaded elsewhere is moved when this one is used, and nothing is read again.
    """
    chosen: Any = model_management.resolve_gpu_device_option(choice)
    if chosen is None and choice != DEFAULT:
        log.warning("there is no device %r here; %s stays on %s", choice, what, patcher.load_device)
        return False
    loaded: Any = patcher
    while loaded.parent is not None:
        loaded = loaded.parent
    patcher.load_device = loaded.load_device if chosen is None else chosen
    patcher.offload_device = chosen if choice == CPU else rest_device or loaded.offload_device
    return True


class DeviceInput(io.Combo.Input):
    """The choice of a device. Which there are is asked when the choices are printed: asking at the start would import torch then."""

    def __init__(self, without: str = "") -> None:
        """All devices but *without*."""
        self._without = without
        super().__init__("device", options=[])

    @property
    def options(self) -> list[str]:
        """The names of the devices."""
        return [name for name in model_management.get_gpu_device_options() if name != self._without]

    @options.setter
    def options(self, value: list[str]) -> None:
        """Nothing else can be chosen."""


def _schema(node_id: str, display_name: str, socket: io.Input, output: io.Output, what: str, without: str = "") -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category=CATEGORY,
        description=f"Computes {what} on the chosen device. default is what the loader chose; a device that is not here "
        f"leaves {what} where it is.",
        inputs=[socket, DeviceInput(without)],
        outputs=[output],
    )


class SelectModelDeviceNode(io.ComfyNode):
    """Chooses the device of a diffusion model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("SelectModelDevice", "Select Model Device", io.Model.Input("model"), io.Model.Output(), "a diffusion model")

    @classmethod
    def validate_inputs(cls, device: str = DEFAULT) -> bool:
        """Any device: workflows of other machines may name one that is not here."""
        return True

    @classmethod
    def execute(cls, model: ModelPatcher, device: str = DEFAULT) -> io.NodeOutput:
        """A clone of *model*; it computes in a dtype that the device knows."""
        clone = model.clone()
        kept = clone.model_dtype()
        if place(clone, device, "the model") and device != DEFAULT and kept is not None:
            dtype = model_management.unet_manual_cast(kept, clone.load_device)
            if dtype is not None:
                log.info("the model computes in %s on %s; its weights are %s", dtype, clone.load_device, kept)
                clone.set_model_compute_dtype(dtype)
        return io.NodeOutput(clone)


class SelectCLIPDeviceNode(io.ComfyNode):
    """Chooses the device of a text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("SelectCLIPDevice", "Select CLIP Device", io.Clip.Input("clip"), io.Clip.Output(), "a text encoder")

    @classmethod
    def validate_inputs(cls, device: str = DEFAULT) -> bool:
        """Any device: workflows of other machines may name one that is not here."""
        return True

    @classmethod
    def execute(cls, clip: CLIP, device: str = DEFAULT) -> io.NodeOutput:
        """A clone of *clip*."""
        clone = clip.clone()
        place(clone.patcher, device, "the text encoder")
        return io.NodeOutput(clone)


class SelectVAEDeviceNode(io.ComfyNode):
    """Chooses the device of an autoencoder, which is not offered the CPU."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("SelectVAEDevice", "Select VAE Device", io.Vae.Input("vae"), io.Vae.Output(), "an autoencoder", CPU)

    @classmethod
    def validate_inputs(cls, device: str = DEFAULT) -> bool:
        """Any device: workflows of other machines may name one that is not here."""
        return True

    @classmethod
    def execute(cls, vae: VAE, device: str = DEFAULT) -> io.NodeOutput:
        """A copy of *vae* around a clone of its patcher."""
        chosen = copy.copy(vae)
        chosen.patcher = vae.patcher.clone()
        if device == CPU:
            log.warning("autoencoders are not moved to the CPU; this one stays on %s", vae.device)
        elif place(chosen.patcher, device, "the autoencoder", model_management.vae_offload_device()):
            chosen.device = chosen.patcher.load_device
        return io.NodeOutput(chosen)


comfy_entrypoint = extension_of(SelectModelDeviceNode, SelectCLIPDeviceNode, SelectVAEDeviceNode)
