"""Models that loaders made, kept in host RAM up to a cap."""

from comfy.cli_args import args
from comfy.ram_models.loaders import RamModels

ram_models = RamModels(args.ram_models_mb * 1024**2)
