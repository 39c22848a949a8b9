"""Turns workflows that the page saved into the prompts that the page would send."""
