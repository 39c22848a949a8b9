"""Train a starter checkpoint on the processor, in less than half an hour on two cores.

    python -m starter.train digits
    python -m starter.train outlines --start models/checkpoints/starter-digits.safetensors

``--start`` takes the text encoder and the autoencoder from a checkpoint and continues from its diffusion model. With ``--steps 0`` the
first command writes a checkpoint whose diffusion model is untrained, from which both styles can be trained at the same time.
"""

import argparse
import logging
import pathlib
import time

import torch

from starter.autoencoder import latent_bank, train_autoencoder, unit_latents
from starter.data import split_digits
from starter.export import StarterNetworks, build_networks, read_checkpoint, write_checkpoint
from starter.prompts import PromptTokens
from starter.styles import STYLES
from starter.text_encoder import prompt_bank, train_text_encoder
from starter.unet import STEPS, train_unet

log = logging.getLogger(__name__)

CHECKPOINTS = pathlib.Path(__file__).resolve().parents[1] / "models" / "checkpoints"
COPIES, PROMPTS_PER_CLASS = 4, 64


def train(style: str, start: pathlib.Path | None, seed: int, unet_steps: int) -> StarterNetworks:
    """The networks for *style*, from scratch or from the checkpoint *start*. The same arguments give the same weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    digits, _ = split_digits()
    tokens = PromptTokens()
    if start is not None:
        networks = read_checkpoint(start)
    else:
        networks = build_networks()
        accuracy = train_text_encoder(networks.text, tokens, seed)
        log.info("the text encoder tells %.1f %% of new prompts apart", accuracy * 100)
        train_autoencoder(networks.vae, digits, generator)
    latents, labels = latent_bank(networks.vae, digits, style, COPIES, generator)
    latents = unit_latents(networks.vae, latents)
    train_unet(networks.unet, latents, labels, prompt_bank(networks.text, tokens, seed, PROMPTS_PER_CLASS), generator, unet_steps)
    return networks


def main() -> None:
    """Read the command line, train, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("style", choices=sorted(STYLES))
    parser.add_argument("--start", type=pathlib.Path, help="a finished starter checkpoint to begin with")
    parser.add_argument("--out", type=pathlib.Path, help="default: models/checkpoints/starter-STYLE.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the diffusion model (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(given.threads)
    began = time.monotonic()
    networks = train(given.style, given.start, given.seed, given.steps)
    out = given.out or CHECKPOINTS / f"starter-{given.style}.safetensors"
    size = write_checkpoint(out, networks)
    log.info(
        "%s: %.1f MB after %.1f minutes, %.1f of processor time", out, size / 1e6, (time.monotonic() - began) / 60, time.process_time() / 60
    )


if __name__ == "__main__":
    main()
