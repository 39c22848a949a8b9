"""Qwen's language models as text encoders."""
