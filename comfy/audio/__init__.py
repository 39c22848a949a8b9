"""Autoencoders of sound."""
