"""Diffusion models that are transformers: what is known of each family, and what their networks share."""
