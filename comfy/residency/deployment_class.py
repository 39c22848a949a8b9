"""What kind of machine computes here, as far as results depend on it: device type, precision and determinism flags."""

from comfy import model_management
from comfy.cli_args import args
from comfy.cli_flags import INERT_FEATURES
from comfy.quantisation import kitchen
from comfyui_version import __version__

# Flags whose value changes numbers. Where weights are kept does not.
_EXACT = ("force_fp32", "force_fp16", "cpu_vae", "deterministic", "force_upcast_attention", "dont_upcast_attention", "supports_fp8_compute")
_ENDINGS = ("_unet", "_vae", "_text_enc")


def deployment_class() -> str:
    """A line of text, the same on machines whose results may stand for one another. Loads torch and probes devices; blocks."""
    given = sorted(name for name, value in vars(args).items() if value is True and (name in _EXACT or name.endswith(_ENDINGS)))
    fast = sorted(feature.value for feature in set(args.fast or ()) - INERT_FEATURES)
    quantised = [f"comfy-kitchen-{kitchen.version()}"] if kitchen.is_installed() else []  # some weights are computed with in few bits
    return f"{__version__} {model_management.get_torch_device().type} {' '.join([*given, *fast, *quantised])}"
