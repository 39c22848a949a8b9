"""The autoencoder class under the name that node packs test for."""

from comfy.families.kl_vae import KlAutoencoder as AutoencoderKL

__all__ = ["AutoencoderKL"]
