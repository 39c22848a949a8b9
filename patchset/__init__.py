"""Applies this project's core changes to the ComfyUI people already have: one series per pull request."""
