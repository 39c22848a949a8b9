"""A stand-in for node packs that keep weights coded: a tensor class whose numbers mean nothing to torch, layers that take and decode it,
and a patcher that writes patches onto the coded tensors. Written as public packs for quantised files do it.
"""

import torch

import comfy.lora
import comfy.ops
import comfy.utils
from comfy.model_patcher import ModelPatcher


class CodedTensor(torch.Tensor):
    """The halves of a float tensor of shape ``coded_shape`` as bytes, so that its own last dimension is twice as long."""

    coded_shape: torch.Size
    patches: list

    @classmethod
    def code(cls, weight):
        """*weight* as coded."""
        coded = weight.half().contiguous().view(torch.uint8).as_subclass(cls)
        coded.coded_shape, coded.patches = weight.shape, []
        return coded

    def decode(self):
        """The numbers, with the patches."""
        weight = self.as_subclass(torch.Tensor).view(torch.float16).float()
        for patches, key in self.patches:
            weight = comfy.lora.calculate_weight(patches, weight, key)
        return weight

    @property
    def shape(self):
        return self.coded_shape if hasattr(self, "coded_shape") else self.size()

    def to(self, *args, **kwargs):
        moved = super().to(*args, **kwargs)
        moved.coded_shape, moved.patches = self.coded_shape, list(self.patches)
        return moved

    def clone(self, *args, **kwargs):
        return self

    def detach(self):
        return self


class CodedLayer(torch.nn.Module):
    """Takes coded weights from a state dict and decodes them at each call."""

    comfy_cast_weights = True

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        if not isinstance(state_dict.get(f"{prefix}weight"), CodedTensor) and self.weight is not None:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
            return
        for key, tensor in state_dict.items():
            setattr(self, key[len(prefix) :], torch.nn.Parameter(tensor, requires_grad=False))
        if self.weight is None:
            missing_keys.append(f"{prefix}weight")

    def forward_comfy_cast_weights(self, input, *args, **kwargs):
        if not isinstance(self.weight, CodedTensor):
            return super().forward_comfy_cast_weights(input, *args, **kwargs)
        bias = self.bias.decode() if isinstance(self.bias, CodedTensor) else self.bias
        return torch.nn.functional.linear(input, self.weight.to(input.device).decode(), bias)


class CodedOps(comfy.ops.manual_cast):
    """Layers of which ``Linear`` may be coded. It has no parameters until it is loaded."""

    class Linear(CodedLayer, comfy.ops.manual_cast.Linear):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features = in_features, out_features
            self.weight = self.bias = None

    class Conv2d(CodedLayer, comfy.ops.manual_cast.Conv2d):
        pass


class CodedPatcher(ModelPatcher):
    """Notes patches of coded weights on the tensors themselves."""

    def patch_weight_to_device(self, key, device_to=None, inplace_update=False):
        if key not in self.patches:
            return
        weight = comfy.utils.get_attr(self.model, key)
        if not isinstance(weight, CodedTensor):
            super().patch_weight_to_device(key, device_to, inplace_update)
            return
        patched = weight.to(device_to)
        patched.patches = [(self.patches[key], key)]
        comfy.utils.set_attr_param(self.model, key, patched)

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        if unpatch_weights:
            for parameter in self.model.parameters():
                if isinstance(parameter, CodedTensor):
                    parameter.patches = []
        return super().unpatch_model(device_to=device_to, unpatch_weights=unpatch_weights)

    def load(self, *args, force_patch_weights=False, **kwargs):
        super().load(*args, force_patch_weights=True, **kwargs)

    def clone(self, *args, **kwargs):
        own = self.__class__
        self.__class__ = CodedPatcher
        twin = super().clone(*args, **kwargs)
        self.__class__ = own
        return twin
