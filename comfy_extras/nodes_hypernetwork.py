"""The node that loads a hypernetwork: small networks that change the keys and values of attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")
utils = lazy_module("comfy.utils")
errors = lazy_module("comfy.families.model_errors")

ACTIVATIONS = ("linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "softsign", "mish")
FUNCTIONS = {"leakyrelu": "leaky_relu", "swish": "hardswish"}  # where torch's name is another
Layer = tuple[str, "Tensor", "Tensor"]


class Hypernetwork:
    """A patch of attention's inputs; *networks* holds two per width of the context, for keys and values. Layers are never changed."""

    def __init__(self, networks: Mapping[int, tuple[list[Layer], list[Layer]]], activation: str, activate_output: bool, strength: float):
        self.networks, self.activation, self.activate_output, self.strength = networks, activation, activate_output, strength

    def patch_identity_key(self) -> tuple[Any, ...]:
        """All that it holds."""
        return dict(self.networks), self.activation, self.activate_output, self.strength

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """*k* and *v* (B×N×C) with what the networks of that width add, times the strength."""
        pair = self.networks.get(k.shape[-1])
        if pair is None:
            return q, k, v
        return q, k + self._run(pair[0], k) * self.strength, v + self._run(pair[1], v) * self.strength

    def to(self, target: Any) -> Hypernetwork:
        """The same with its layers on a device or in a dtype."""
        networks = {
            width: tuple([(kind, weight.to(target), bias.to(target)) for kind, weight, bias in layers] for layers in pair)
            for width, pair in self.networks.items()
        }
        return Hypernetwork(networks, self.activation, self.activate_output, self.strength)  # type: ignore[arg-type]  # still pairs

    def _run(self, layers: list[Layer], x: Tensor) -> Tensor:
        functional = torch.nn.functional
        last = len(layers) - 1
        for number, (kind, weight, bias) in enumerate(layers):
            if kind == "norm":
                x = functional.layer_norm(x, weight.shape, weight, bias)
                continue
            x = functional.linear(x, weight, bias)
            if self.activation != "linear" and (number != last or self.activate_output):
                x = getattr(functional, FUNCTIONS.get(self.activation, self.activation))(x)
        return x


def load_hypernetwork_patch(path: str, strength: float) -> Hypernetwork:
    """The patch of the file *path* in the published layout. Dropout, which is for training, is left out.

    Raises ``ModelFileError``, naming the file, when it is not a hypernetwork or uses an activation that is not known.
    """
    content = utils.load_torch_file(path, safe_load=True)
    activation = content.get("activation_func", "linear") or "linear"
    if activation not in ACTIVATIONS:
        raise errors.ModelFileError(f"{path} uses the activation {activation!r}; known are {', '.join(ACTIVATIONS)}")
    has_norms = bool(content.get("is_layer_norm", False))
    networks = {}
    for name, pair in content.items():
        if str(name).isdecimal():
            try:
                networks[int(name)] = _layers(pair[0], has_norms), _layers(pair[1], has_norms)
            except (KeyError, IndexError, TypeError, AttributeError) as error:
                raise errors.ModelFileError(f"{path} is no hypernetwork: its entry {name} does not hold two networks ({error})") from error
    if not networks:
        raise errors.ModelFileError(f"{path} is no hypernetwork: it has no networks by width; choose another file")
    return Hypernetwork(networks, activation, bool(content.get("activate_output", False)), strength)


def _layers(tensors: Mapping[str, Tensor], has_norms: bool) -> list[Layer]:
    """Linear layers, with *has_norms* each followed by a norm, in the order of the file."""
    names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    if not names:
        raise KeyError("no layers")
    kinds = ["norm" if has_norms and number % 2 else "linear" for number in range(len(names))]
    return [(kind, tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for kind, name in zip(kinds, names)]


class HypernetworkLoader(io.ComfyNode):
    """Lets a hypernetwork change a model's attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HypernetworkLoader",
            display_name="Load Hypernetwork",
            category="model/loaders",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("hypernetwork_name", options=folder_paths.get_filename_list("hypernetworks")),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.01),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, hypernetwork_name: str, strength: float) -> io.NodeOutput:
        """A clone of *model*. Raises ``FileNotFoundError``, and ``ModelFileError`` that names a file of another kind."""
        patch = load_hypernetwork_patch(folder_paths.get_full_path_or_raise("hypernetworks", hypernetwork_name), strength)
        clone = model.clone()
        clone.set_model_attn1_patch(patch)
        clone.set_model_attn2_patch(patch)
        return io.NodeOutput(clone)

    load_hypernetwork = execute


comfy_entrypoint = extension_of(HypernetworkLoader)
