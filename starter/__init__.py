"""Trains and checks the two starter models: tiny Stable Diffusion 1.x checkpoints that draw handwritten digits.

Not part of the server: nothing outside ``starter/`` imports it. Needs torch, diffusers, transformers and scikit-learn.
"""
