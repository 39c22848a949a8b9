"""Sampling long videos window by window; :mod:`comfy.context_windows` publishes what node packs import."""
