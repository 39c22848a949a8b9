"""Preloading: models that ``preload_config.json`` names are read while the server starts, and held."""
