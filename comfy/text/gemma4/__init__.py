"""Gemma 4's language models as text encoders, with what looks and listens."""
