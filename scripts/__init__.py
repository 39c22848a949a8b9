"""Commands for those who work on the project; run as ``python -m scripts.NAME``."""
