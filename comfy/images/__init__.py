"""Pictures and latents: the autoencoder, tiles, batches, scaling."""
