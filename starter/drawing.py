"""Draws pictures with a starter checkpoint: through the server's nodes, or through the bare networks."""

import pathlib
from typing import Any

import torch

import folder_paths
from comfy_extras.core_conditioning import CLIPTextEncode
from comfy_extras.core_latents import EmptyLatentImage
from comfy_extras.core_loaders import CheckpointLoaderSimple
from comfy_extras.core_sampling import KSampler
from comfy_extras.core_vae import VAEDecode
from starter.data import IMAGE_SIDE
from starter.diffusion import euler
from starter.export import StarterNetworks
from starter.prompts import PromptTokens
from starter.sizes import LATENT_SCALE, UNET

CFG, STEPS = 4.5, 20


class NodePainter:
    """Draws with the nodes of the default workflow: loader, prompts, KSampler, decoder."""

    def __init__(self, checkpoint: pathlib.Path, sampler: str = "euler", scheduler: str = "normal") -> None:
        folder_paths.add_model_folder_path("checkpoints", str(checkpoint.resolve().parent), is_default=True)
        self._model, self._clip, self._vae = CheckpointLoaderSimple().load_checkpoint(checkpoint.name)
        self._settings: dict[str, Any] = {"steps": STEPS, "cfg": CFG, "sampler_name": sampler, "scheduler": scheduler}

    def draw(self, prompt: str, count: int, seed: int) -> torch.Tensor:
        """*count* pictures for *prompt*: count x 3 x 64 x 64, 0 to 1."""
        with torch.inference_mode():
            wanted, unwanted = (CLIPTextEncode().encode(self._clip, text)[0] for text in (prompt, ""))
            empty = EmptyLatentImage().generate(IMAGE_SIDE, IMAGE_SIDE, count)[0]
            latent = KSampler().sample(self._model, seed, positive=wanted, negative=unwanted, latent_image=empty, **self._settings)[0]
            return VAEDecode().decode(self._vae, latent)[0].movedim(-1, 1).float()


class BarePainter:
    """Draws with diffusers' networks and a plain Euler loop: a check that does not depend on the server's code."""

    def __init__(self, networks: StarterNetworks) -> None:
        self._networks = networks
        self._tokens = PromptTokens()

    def draw(self, prompt: str, count: int, seed: int) -> torch.Tensor:
        """*count* pictures for *prompt*: count x 3 x 64 x 64, 0 to 1; the noise of a seed is not that of the nodes."""
        with torch.inference_mode():
            states = self._networks.text(input_ids=self._tokens.rows([prompt, ""])).last_hidden_state
            side = IMAGE_SIDE // 8
            noise = torch.randn(count, UNET.in_channels, side, side, generator=torch.Generator().manual_seed(seed))
            wanted, unwanted = (state.expand(count, -1, -1) for state in states.split(1))
            latents = euler(self._networks.unet, wanted, unwanted, noise, CFG, STEPS)
            return (self._networks.vae.decode(latents / LATENT_SCALE).sample / 2 + 0.5).clamp(0, 1)
