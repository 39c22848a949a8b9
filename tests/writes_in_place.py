"""A node pack that does what none should: its node adds to a weight of the model it is given, in place."""

import torch


class WriteInPlace:
    """Changes the last layer of a diffusion model for all who use it."""

    CATEGORY = "tests"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "write"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802  (ComfyUI's name)
        """A model."""
        return {"required": {"model": ("MODEL",)}}

    def write(self, model):
        """The same model, changed."""
        with torch.no_grad():
            for weight in model.model.parameters():
                if weight.dim() == 4 and weight.shape[0] == 4:
                    weight.add_(0.05)
        return (model,)


NODE_CLASS_MAPPINGS = {"WriteInPlace": WriteInPlace}
