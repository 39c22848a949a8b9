"""Models that change a picture by an instruction: its latent is a second half of their input channels (Brooks et al., arXiv:2211.09800)."""

from typing import Any

import torch

import comfy.utils


class IP2P:
    """The part of such a ``BaseModel`` that makes the channels beside the latent."""

    def process_ip2p_image_in(self, image: torch.Tensor) -> torch.Tensor:
        """The picture's latent, B x C x height x width, as the network takes it: in the autoencoder's scale."""
        return image

    def concat_cond(self, **kwargs: Any) -> torch.Tensor:
        """The latent ``concat_latent_image`` in the size and number of ``noise``; zeros without one."""
        noise, image = kwargs["noise"], kwargs.get("concat_latent_image")
        image = torch.zeros_like(noise) if image is None else image.to(device=kwargs["device"])
        if image.shape[1:] != noise.shape[1:]:
            image = comfy.utils.common_upscale(image, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        return self.process_ip2p_image_in(comfy.utils.resize_to_batch_size(image, len(noise)))
