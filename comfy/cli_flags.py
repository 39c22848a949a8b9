"""Every command-line flag, by theme. Names and value forms are ComfyUI's; both generations in use are accepted."""

import argparse
import enum
import os
from collections.abc import Callable, Iterable
from typing import Any

from comfy.attention_flags import ATTENTION_KINDS, PerformanceFeature, attention
from comfy.flag_values import cache_url, host_name
from comfy.preload_flags import preloading
from comfy.store_flags import lasting_weights
from comfy.tokenizer_flags import tokenizers


class LatentPreviewMethod(enum.Enum):
    """How a sampler's intermediate latents become preview pictures."""

    NoPreviews = "none"
    Auto = "auto"
    Latent2RGB = "latent2rgb"
    TAESD = "taesd"

    @classmethod
    def from_string(cls, value: str) -> "LatentPreviewMethod | None":
        """The member whose value is exactly *value* (case-sensitive), or None."""
        return next((member for member in cls if member.value == value), None)


INERT_FEATURES = frozenset({PerformanceFeature.CublasOps})
INERT_FLAGS = frozenset(
    "--directml --disable-xformers --mmap-torch-files --disable-mmap --fast-disk --high-ram "
    "--enable-dynamic-vram --disable-dynamic-vram --disable-nvml-pressure --disable-cuda-graphs "
    "--fp16-intermediates --normalvram --comfy-api-base --enable-asset-hashing --database-url "
    "--enable-assets --disable-manager-ui".split()
)

UNET_DTYPES = ("fp32", "fp64", "bf16", "fp16", "fp8_e4m3fn", "fp8_e5m2", "fp8_e8m0fnu")
HASHES = ("md5", "sha1", "sha256", "sha512")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DEFAULT_FRONT_END = "comfyanonymous/ComfyUI@latest"

Adder = Callable[..., Any]


def build_parser() -> argparse.ArgumentParser:
    """A new parser with every flag and its default; nothing is read."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        usage="main.py [flags]   (--help explains each)",
        description="A ComfyUI-compatible server that keeps models and results warm.",
    )
    hardware = (_network, _directories, _devices, _precision, attention, _memory)
    for add_theme in (*hardware, lasting_weights, preloading, tokenizers, _results, _nodes, _interface, _process):
        add_theme(parser.add_argument_group(add_theme.__doc__ or ""))
    return parser


def settle(parsed: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Apply what one flag says about another, in place; a contradiction ends with a usage error."""
    exclusive = (
        ("cache_classic", "cache_lru", "cache_none", "cache_ram"),
        ("ram_model_cache_mb", "no_ram_model_cache"),
        ("gpu_only", "highvram", "normalvram", "lowvram", "novram", "cpu"),
        ("cuda_malloc", "disable_cuda_malloc"),
        ("force_fp32", "force_fp16"),
        ("fp32_unet", "fp64_unet", "bf16_unet", "fp16_unet", "fp8_e4m3fn_unet", "fp8_e5m2_unet", "fp8_e8m0fnu_unet"),
        ("fp16_vae", "fp32_vae", "bf16_vae"),
        ("fp8_e4m3fn_text_enc", "fp8_e5m2_text_enc", "fp16_text_enc", "fp32_text_enc", "bf16_text_enc"),
        tuple(f"use_{kind.replace('-', '_')}" for kind, _ in ATTENTION_KINDS),
        ("force_upcast_attention", "dont_upcast_attention"),
    )
    for group in exclusive:
        given = ["--" + name.replace("_", "-") for name in group if getattr(parsed, name) != parser.get_default(name)]
        if len(given) > 1:
            parser.error(f"{' and '.join(given)} exclude each other; give one of them")
    if bool(parsed.tls_keyfile) != bool(parsed.tls_certfile):
        parser.error("--tls-keyfile and --tls-certfile belong together; give both")
    if parsed.windows_standalone_build and not parsed.disable_auto_launch:
        parsed.auto_launch = True
    if parsed.disable_auto_launch:
        parsed.auto_launch = False
    if parsed.enable_manager_legacy_ui:
        parsed.enable_manager = True
    if parsed.force_fp16:
        parsed.fp16_unet = True
    if parsed.fast is not None and not parsed.fast:
        parsed.fast = list(PerformanceFeature)
    parsed.fast = set(parsed.fast or ())
    parsed.verbose, parsed.log_file = _verbosity(parsed.verbose, parser)


def _verbosity(words: list[str] | str, parser: argparse.ArgumentParser) -> tuple[str, str | None]:
    """``--verbose [LEVEL [FILE]]`` as (level, file)."""
    if isinstance(words, str):
        return words, None
    level = words[0] if words else "DEBUG"
    if level not in LOG_LEVELS or len(words) > 2:
        parser.error(f"--verbose takes a level ({', '.join(LOG_LEVELS)}) and an optional file, not {' '.join(words)!r}")
    return level, words[1] if len(words) > 1 else None


def _existing_directory(text: str) -> str:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an existing directory; create it first")
    return text


def _existing_directory_or_none(text: str | None) -> str | None:
    return None if text is None else _existing_directory(text)


def _preview_method(text: str) -> LatentPreviewMethod:
    method = LatentPreviewMethod.from_string(text)
    if method is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(m.value for m in LatentPreviewMethod)}")
    return method


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is negative; 0 turns it off")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time span; give seconds above 0, or leave the flag out for no limit")
    return seconds


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port; ports go from 0 (any free one) to 65535")
    return number


def _switches(add: Adder, described: Iterable[tuple[str, str]]) -> None:
    for flag, meaning in described:
        add(flag, action="store_true", help=meaning)


def _unused(names: str) -> Iterable[tuple[str, str]]:
    """Switches that are accepted and change nothing."""
    return ((f"--{name}", "not used here") for name in names.split())


def _network(group: argparse._ArgumentGroup) -> None:
    """network"""
    add = group.add_argument
    add(
        "--listen",
        metavar="IP",
        nargs="?",
        default="127.0.0.1",
        const="0.0.0.0,::",
        help="comma-separated addresses to serve on; bare: every IPv4 and IPv6 address (default: 127.0.0.1)",
    )
    add("--port", type=_port, default=8188, help="port to serve on, 0 for any free one (default: 8188)")
    add("--tls-keyfile", help="private key for HTTPS; needs --tls-certfile")
    add("--tls-certfile", help="certificate for HTTPS; needs --tls-keyfile")
    add("--enable-cors-header", metavar="ORIGIN", nargs="?", const="*", help="let pages of this origin use the server (bare: of any)")
    add(
        "--allowed-host",
        nargs="+",
        default=[],
        type=host_name,
        metavar="NAME",
        help="names, beside localhost and loopback addresses, by which browsers may reach a server that listens on loopback only",
    )
    add("--max-upload-size", type=float, default=100, metavar="MB", help="largest request body (default: 100)")
    add("--enable-compress-response-body", action="store_true", help="compress JSON and text answers")


def _directories(group: argparse._ArgumentGroup) -> None:
    """directories"""
    add = group.add_argument
    add("--base-directory", metavar="DIR", help="holds models, custom_nodes, input, output, temp and user (default: this folder)")
    add("--extra-model-paths-config", nargs="+", action="append", metavar="FILE", help="YAML files that name further model folders")
    add("--output-directory", metavar="DIR", help="where results go")
    add("--temp-directory", metavar="DIR", help="a folder 'temp' is made in here, and emptied at start and end")
    add("--input-directory", metavar="DIR", help="where uploads go and LoadImage looks")
    add("--user-directory", metavar="DIR", type=_existing_directory_or_none, help="settings and saved workflows")
    add("--models-directory", metavar="DIR", type=_existing_directory_or_none, help="model folders, instead of BASE/models")
    add("--default-hashing-function", choices=HASHES, default="sha256", help="tells equal uploads apart (default: sha256)")


def _devices(group: argparse._ArgumentGroup) -> None:
    """devices"""
    add = group.add_argument
    add("--cuda-device", metavar="IDS", help="the only accelerators to use, e.g. 0 or 0,1")
    add("--default-device", type=int, metavar="ID", help="the accelerator to prefer; the others stay visible")
    add("--directml", type=int, nargs="?", const=-1, metavar="ID", help="not used here")
    add("--oneapi-device-selector", metavar="TEXT", help="sets ONEAPI_DEVICE_SELECTOR")
    add(
        "--simulated-vram-mb",
        type=_not_negative,
        default=0,
        metavar="MB",
        help="let the CPU act as an accelerator with this much memory of its own, to watch or test loading and eviction",
    )
    add("--simulated-vram-devices", type=int, default=1, metavar="N", help="how many such accelerators (default: 1)")
    _switches(
        add,
        (
            ("--cpu", "use the CPU for everything"),
            (
                "--cuda-malloc",
                "use CUDA's asynchronous allocator (the default where torch was built for CUDA and all cards have memory pools)",
            ),
            ("--disable-cuda-malloc", "use torch's own allocator"),
            ("--enable-triton-backend", "let comfy-kitchen use its Triton kernels"),
            ("--disable-triton-backend", "keep comfy-kitchen from using its Triton kernels (the default)"),
            ("--force-channels-last", "keep the weights of diffusion models' convolutions in channels-last order on the card"),
            *_unused("disable-cuda-graphs"),
            ("--deterministic", "ask torch for deterministic algorithms; slower"),
            ("--supports-fp8-compute", "take the card for one that multiplies float8 matrices"),
        ),
    )


def _precision(group: argparse._ArgumentGroup) -> None:
    """precision"""
    _switches(
        group.add_argument,
        (
            ("--force-fp32", "compute in float32"),
            ("--force-fp16", "compute in float16"),
            *((f"--{kind}-unet", f"keep the diffusion model in {kind}") for kind in UNET_DTYPES),
            *((f"--{kind}-vae", f"run the VAE in {kind}") for kind in ("fp16", "fp32", "bf16")),
            ("--cpu-vae", "run the VAE on the CPU"),
            *((f"--{kind}-text-enc", f"keep the text encoder in {kind}") for kind in ("fp8_e4m3fn", "fp8_e5m2", "fp16", "fp32", "bf16")),
            ("--fp16-intermediates", "not used here"),
        ),
    )


def _memory(group: argparse._ArgumentGroup) -> None:
    """device memory"""
    add = group.add_argument
    _switches(
        add,
        (
            ("--gpu-only", "keep every model on the accelerator"),
            ("--highvram", "leave models on the accelerator after use"),
            ("--normalvram", "the default"),
            ("--lowvram", "keep less of each model on the accelerator"),
            ("--novram", "keep as little as possible on the accelerator"),
            ("--disable-smart-memory", "move models off the accelerator as soon as they are not in use"),
            ("--disable-pinned-memory", "never page-lock host memory"),
            ("--disable-async-offload", "let each layer that stays in RAM fetch its weights itself, when it is called"),
            ("--force-non-blocking", "queue every copy to the accelerator, also where that may go wrong"),
            *_unused("disable-dynamic-vram enable-dynamic-vram disable-nvml-pressure fast-disk high-ram mmap-torch-files"),
            ("--disable-mmap", "accepted; files are never mapped"),
        ),
    )
    add("--reserve-vram", type=float, metavar="GB", help="device memory to leave to others")
    add("--vram-headroom", type=float, default=0, metavar="GB", help="device memory to leave free beyond that")
    add("--async-offload", type=int, nargs="?", const=2, metavar="N", help="layers in RAM that a card fetches at a time (default: 2)")
    add(
        "--ram-model-cache-mb",
        type=_not_negative,
        default=None,
        metavar="MB",
        help="keep up to this much of models in host RAM when they leave the accelerator or no result needs them, so that they are not "
        "read again; 0: none (default: with more than 64 GB of RAM free at the start a quarter of it, at most 32 GB; else 0)",
    )
    add("--no-ram-model-cache", action="store_true", help="the same as --ram-model-cache-mb 0")
    add(
        "--ram-model-cache-ttl",
        type=_seconds,
        default=None,
        metavar="SECONDS",
        help="let models in host RAM go that nothing used for this long (default: no limit)",
    )
    add("--no-read-ahead", action="store_true", help="read no model before its loader node runs (reading ahead needs the RAM model cache)")
    verify_help = "each time a model's patches are undone, compare its weights and buffers with what they were, and log what stayed behind"
    add("--verify-unpatch", action="store_true", help=verify_help)


def _results(group: argparse._ArgumentGroup) -> None:
    """results kept between prompts"""
    add = group.add_argument
    add("--cache-classic", action="store_true", help="keep the results of the last prompt (the default)")
    add("--cache-lru", type=_not_negative, default=0, metavar="N", help="keep the results of up to N more nodes, oldest use out first")
    add("--cache-none", action="store_true", help="keep nothing; every node runs in every prompt")
    add(
        "--cache-ram",
        type=float,
        nargs="*",
        default=None,
        metavar="GB",
        help="keep results until less than this much RAM is free (bare: a quarter of the machine's, 4 to 32 GB)",
    )
    add(
        "--cache-provider",
        action="append",
        default=[],
        metavar="URL",
        type=cache_url,
        help="share results through file:///DIR, redis://HOST, unix:///SOCKET, s3://BUCKET, gs://BUCKET or az://CONTAINER; give it again "
        "for more, which are asked in that order",
    )
    add("--cache-namespace", default="", metavar="NAME", help="share results only with servers that were given the same name")
    add("--no-node-memo", action="store_true", help="never answer a node that patches a model by what it gave for equal inputs before")
    add("--node-memo-packs", nargs="+", default=[], metavar="NAME", help="answer nodes of these packs (names of folders) so as well")


def _nodes(group: argparse._ArgumentGroup) -> None:
    """node packs"""
    _switches(
        group.add_argument,
        (
            ("--disable-all-custom-nodes", "load no pack from custom_nodes"),
            ("--disable-api-nodes", "no partner nodes, and pages may not reach other hosts"),
            ("--enable-manager", "start the comfyui-manager package if it is installed"),
            ("--disable-manager-ui", "not used here"),
            ("--enable-manager-legacy-ui", "implies --enable-manager"),
        ),
    )
    group.add_argument("--whitelist-custom-nodes", nargs="+", default=[], metavar="NAME", help="packs to load all the same")
    group.add_argument("--comfy-api-base", default="https://api.comfy.org", metavar="URL", help="not used here")


def _interface(group: argparse._ArgumentGroup) -> None:
    """page and previews"""
    add = group.add_argument
    add(
        "--preview-method",
        type=_preview_method,
        default=LatentPreviewMethod.NoPreviews,
        metavar="{none,auto,latent2rgb,taesd}",
        help="pictures while sampling (default: none)",
    )
    add("--preview-size", type=int, default=512, metavar="PIXELS", help="longest side of a preview (default: 512)")
    add("--front-end-version", default=DEFAULT_FRONT_END, metavar="OWNER/REPO@VERSION", help="only the installed package is served")
    add("--front-end-root", metavar="DIR", type=_existing_directory_or_none, help="serve the page from this folder")
    add("--feature-flag", action="append", default=[], metavar="KEY[=VALUE]", help="announce a feature to pages and clients")
    _switches(
        add,
        (
            ("--list-feature-flags", "print the known features as JSON and exit"),
            ("--multi-user", "settings and workflows per user"),
            ("--disable-metadata", "write no workflow into saved files"),
            ("--auto-launch", "open the page in a browser"),
            ("--disable-auto-launch", "do not open the page"),
            ("--windows-standalone-build", "open the page in a browser unless told otherwise"),
            ("--enable-assets", "not available here; asset routes answer 'disabled'"),
            ("--enable-asset-hashing", "not used here"),
        ),
    )
    add("--database-url", metavar="URL", help="not used here")


def _process(group: argparse._ArgumentGroup) -> None:
    """process"""
    add = group.add_argument
    add("--verbose", nargs="*", default="INFO", metavar="LEVEL FILE", help="what to log (bare: DEBUG), and a file to log to as well")
    add("--log-stdout", action="store_true", help="log to standard output instead of standard error")
    add("--dont-print-server", action="store_true", help="do not print the server's address and requests")
    add("--quick-test-for-ci", action="store_true", help="load everything, then exit with 0")
    add("--debug-hang", action="store_true", help="print every thread's stack on Ctrl-C or SIGTERM")
    add("--run", metavar="WORKFLOW", help="run this API- or UI-format workflow once without serving, print where the results are, and exit")
    add("--repeat", type=int, default=1, metavar="N", help="with --run: how many times")
    add("--started-prompts", metavar="FILE", help="append each prompt's id to this file just before it runs")
