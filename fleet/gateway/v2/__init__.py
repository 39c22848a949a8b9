"""Comfy API v2 over the fleet."""
