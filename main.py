"""Composition root: flags become objects, objects are served, and closed in reverse.

Scripts that embed the server import this module and call ``start_comfyui``; ``python main.py`` does the same and serves.
"""

import comfy.options

comfy.options.enable_args_parsing()

import asyncio  # noqa: E402
import contextlib  # noqa: E402
import faulthandler  # noqa: E402
import gc  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import webbrowser  # noqa: E402
from collections.abc import Callable, Coroutine, Iterator  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from typing import Any  # noqa: E402

import folder_paths  # noqa: E402
from app.files.off_loop import WORKER_THREADS  # noqa: E402
from app.files.user_folder import prepare_user_folder  # noqa: E402
from app.logger import setup_logger  # noqa: E402
from app.packs.loader import PackPolicy, run_prestartup_scripts  # noqa: E402
from app.running import lasting_weights  # noqa: E402
from app.running.environment import set_environment  # noqa: E402
from app.running.exposure import say_who_may_use  # noqa: E402
from app.running.listeners import ReservedPorts  # noqa: E402
from app.running.stop_watch import StopWatch  # noqa: E402
from app.running.temp_folder import TempFolder  # noqa: E402
from comfy import model_management  # noqa: E402
from comfy.cli_args import args, inert_flags_given  # noqa: E402
from comfy.lazy_import import lazy_module  # noqa: E402
from comfy.units import GIB, megabytes  # noqa: E402
from utils.extra_config import load_extra_path_config  # noqa: E402

patching = lazy_module("comfy.patching.patched_models")

PRELOAD_FLAGS = ("preload_config", "preload_check", "preload_only", "save_preload_config", "warmup_prompt", "snapshot_start")
log = logging.getLogger(__name__)
Serve = Callable[[], Coroutine[Any, Any, None]]


def set_directories() -> None:
    """Apply the directory flags and extra model paths, and make the folders that must exist."""
    for name, given in (("output", args.output_directory), ("input", args.input_directory), ("user", args.user_directory)):
        if given:
            getattr(folder_paths, f"set_{name}_directory")(os.path.abspath(given))
    if args.temp_directory:
        folder_paths.set_temp_directory(os.path.join(os.path.abspath(args.temp_directory), "temp"))
    beside = os.path.join(os.path.dirname(os.path.realpath(__file__)), "extra_model_paths.yaml")
    configs = [beside] if os.path.isfile(beside) else []
    for config in configs + [path for given in args.extra_model_paths_config or () for path in given]:
        add_extra_folders(config)
    # Models that nodes save are found again by the loaders.
    for key, name in (
        ("checkpoints", "checkpoints"),
        ("text_encoders", "clip"),
        ("vae", "vae"),
        ("diffusion_models", "diffusion_models"),
        ("loras", "loras"),
    ):
        folder_paths.add_model_folder_path(key, os.path.join(folder_paths.get_output_directory(), name))
    for directory in (
        folder_paths.get_output_directory(),
        folder_paths.get_input_directory(),
        folder_paths.get_user_directory(),
        *folder_paths.get_folder_paths("custom_nodes")[:1],
    ):
        os.makedirs(directory, exist_ok=True)
    if not args.multi_user:
        prepare_user_folder(os.path.join(folder_paths.get_user_directory(), "default"))


def add_extra_folders(config: str) -> None:
    """Look for models in the folders that the YAML file *config* names as well. Raises ``SystemExit``, saying what is wrong with it."""
    try:
        load_extra_path_config(config)
    except (OSError, ValueError) as error:
        raise SystemExit(f"The file of extra model paths cannot be used: {error}") from None


def log_settings() -> None:
    """Say once which given flags do nothing here."""
    inert = inert_flags_given(sys.argv[1:])
    if inert:
        log.info("Accepted for compatibility, without effect in this server: %s", " ".join(inert))
    say_who_may_use(args)
    if args.enable_manager:
        log.warning("--enable-manager: the comfyui-manager package is not started by this server; install packs into custom_nodes")


def make_executor(prompt_server: Any) -> Any:
    """The executor with the cache mode that the flags name."""
    import execution

    cache_type, sizes = execution.CacheType.CLASSIC, {}
    if args.cache_lru > 0:
        cache_type, sizes = execution.CacheType.LRU, {"lru": args.cache_lru}
    elif args.cache_ram is not None:
        cache_type, sizes = execution.CacheType.RAM_PRESSURE, ram_headroom_gb(args.cache_ram)
    elif args.cache_none:
        cache_type = execution.CacheType.NONE
    log.info(
        "Results between prompts: %s",
        {
            "CLASSIC": "those of the last prompt are kept (classic)",
            "LRU": f"up to {args.cache_lru} more nodes are kept, oldest use out first (LRU)",
            "RAM_PRESSURE": f"kept while at least {megabytes(sizes.get('ram', 0) * GIB)} of RAM are free",
            "NONE": "none are kept",
        }[cache_type.name],
    )
    prompt_server.read_ahead = make_read_ahead(prompt_server)
    return execution.PromptExecutor(
        prompt_server,
        cache_type=cache_type,
        cache_args=sizes,
        model_cache=model_management.ram_cache(),
        read_ahead=prompt_server.read_ahead,
        forget_patches=forget_beside_models,
    )


def forget_beside_models() -> None:
    """Let go of what is kept of patched models, and of the weights in the store that no other server uses."""
    if torch_is_imported():
        patching.forget()
    lasting_weights.clear("POST /free")


def make_read_ahead(prompt_server: Any) -> Any:
    """What reads models before their loaders ask; None where a flag says so, or no RAM model cache is there to keep them."""
    import nodes
    from app.read_ahead.reader import ReadAhead

    cache = model_management.ram_cache()
    if args.no_read_ahead or not cache.enabled:
        return None
    return ReadAhead(cache, lambda: prompt_server.prompt_queue, lambda: nodes.NODE_CLASS_MAPPINGS)


def model_folders() -> dict[str, tuple[str, ...]]:
    """The folders of every kind of model."""
    return {kind: tuple(folder_paths.get_folder_paths(kind)) for kind in folder_paths.folder_names_and_paths if kind != "custom_nodes"}


def describe_caches(prompt_server: Any, executor: Any) -> None:
    """Have ``GET /caches`` and ``GET /caches/summary`` tell of this process's caches."""
    from app.routes.caches import describe_models, describe_results
    from app.running.warm_models import describe_warmth

    prompt_server.cache_sections.add("results", lambda: describe_results(executor))
    prompt_server.cache_sections.add("models", lambda: describe_models(model_management.ram_cache()))
    prompt_server.cache_sections.add("store", lasting_weights.describe)
    prompt_server.cache_sections.add("patches", lambda: patching.patched_models().describe() if torch_is_imported() else None)
    prompt_server.cache_sections.add("nodes", lambda: patching.node_memo().describe() if torch_is_imported() else None)
    prompt_server.cache_sections.add("remembered", lambda: patching.content_memo().describe() if torch_is_imported() else None)
    prompt_server.cache_summary.models = describe_warmth(model_management.ram_cache, model_folders)


def note_start_of_prompts() -> Callable[[str], None]:
    """What is told the id of each prompt just before it runs. Raises ``SystemExit`` when the file for them cannot be made."""
    from app.running.started_prompts import StartedPrompts

    if not args.started_prompts:
        return lambda prompt_id: None
    try:
        return StartedPrompts(args.started_prompts).note
    except OSError as error:
        raise SystemExit(f"--started-prompts {args.started_prompts}: the file cannot be made: {error.strerror}") from None


def torch_is_imported() -> bool:
    """Whether something in this process has imported torch; whoever must not be the first to do so asks this."""
    return "torch" in sys.modules


def ram_headroom_gb(given: list[float]) -> dict[str, float]:
    """The thresholds of ``--cache-ram [ACTIVE [INACTIVE]]`` in GiB; without numbers a quarter of the machine's RAM, 4 to 32 GiB."""
    import psutil

    active = given[0] if given else min(32.0, max(4.0, psutil.virtual_memory().total * 0.25 / GIB))
    return {"ram": active, "ram_inactive": given[1] if len(given) > 1 else active}


def take_cache_providers(loop: asyncio.AbstractEventLoop, policy: PackPolicy) -> None:
    """Check that a pack took every ``--cache-provider``. Raises ``SystemExit`` with what to do when none took one.

    The pack that comes with this server is loaded for it even if the packs lie elsewhere (``--base-directory``).
    """
    import nodes
    from comfy_execution.cache_provider import _get_cache_providers

    def not_taken() -> list[str]:
        taken = {getattr(provider, "url", None) for provider in _get_cache_providers()}
        return [url for url in args.cache_provider if url not in taken]

    bundled = os.path.join(os.path.dirname(os.path.realpath(__file__)), "custom_nodes", "keepwarm")
    preloads = any(getattr(args, name) for name in PRELOAD_FLAGS) or any(
        os.environ.get(f"KEEPWARM_{name.upper()}") for name in PRELOAD_FLAGS
    )
    asked_for = os.environ.get("KEEPWARM_CACHE_PROVIDERS") or os.environ.get("KEEPWARM_REMEMBER_INSTANTID")
    is_wanted = not_taken() or preloads or asked_for
    if is_wanted and "keepwarm" not in nodes.LOADED_MODULE_DIRS and policy.allows("keepwarm") and os.path.isdir(bundled):
        loop.run_until_complete(nodes.load_custom_node(bundled))
    if left := not_taken():
        # Without options, for somebody may have put a password there.
        place = left[0].partition("?")[0]
        raise SystemExit(
            f"--cache-provider {place}: no node pack took it. The pack custom_nodes/keepwarm must be there and enabled "
            "(with --disable-all-custom-nodes add --whitelist-custom-nodes keepwarm); if it is, the log above says what is "
            "missing"
        )
    if preloads and "keepwarm" not in nodes.LOADED_MODULE_DIRS:
        raise SystemExit(
            "Preloading needs the node pack custom_nodes/keepwarm, which is missing or disabled, or failed (see the log above)"
        )
    if args.cache_none and _get_cache_providers():
        log.warning("With --cache-none results are neither fetched from cache providers nor stored there; leave it out to share them")


@contextlib.contextmanager
def collections_put_off() -> Iterator[None]:
    """No garbage is collected by itself in the block: nearly all that a start makes stays, and looking through it over and over costs a
    tenth of the start."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collections_put_off()
def start_comfyui(asyncio_loop: asyncio.AbstractEventLoop | None = None) -> tuple[asyncio.AbstractEventLoop, Any, Serve]:
    """Build everything and start the prompt worker, without listening yet.

    Returns the event loop, the ``PromptServer`` and a coroutine function that serves until it is cancelled.
    """
    set_environment(args)
    set_directories()
    temp_folder = TempFolder(folder_paths.get_temp_directory(), args.port)
    log_settings()
    policy = PackPolicy(args.disable_all_custom_nodes, frozenset(args.whitelist_custom_nodes))
    run_prestartup_scripts(folder_paths.get_folder_paths("custom_nodes"), policy)
    lasting_weights.open_store()

    import execution
    import nodes
    import server
    from app.running.model_upkeep import ModelUpkeep
    from app.running.pending_models import PendingModels
    from app.running.worker import PromptWorker

    loop = asyncio_loop or asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # Plenty, for a thread that reads from a mount that hangs is gone for good.
    loop.set_default_executor(ThreadPoolExecutor(WORKER_THREADS, "disk"))
    prompt_server = server.PromptServer(loop, torch_is_imported)
    prompt_server.temp_folder = temp_folder
    prompt_server.prompt_queue = prompt_server.prompt_queue or execution.PromptQueue(prompt_server)
    loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=not policy.allows_none(), init_api_nodes=not args.disable_api_nodes))
    take_cache_providers(loop, policy)
    prompt_server.add_routes()
    install_progress_hook(prompt_server)
    # What the start made so far stays; full collections that look through it again would hold up answers. The executor comes after:
    # it replaces its caches on request, and a cycle with one frozen object in it is never collected, nor the models it refers to.
    gc.collect()
    gc.freeze()
    executor = make_executor(prompt_server)
    describe_caches(prompt_server, executor)
    model_management.process_models().watch_queue(PendingModels(prompt_server.prompt_queue, model_folders).paths)
    upkeep = ModelUpkeep(model_management.names(), model_management.process_models().spare.release, torch_is_imported)
    worker = PromptWorker(
        prompt_server.prompt_queue, prompt_server, executor, execution.PromptQueue.ExecutionStatus, upkeep, note_start_of_prompts()
    )
    worker.start()

    async def serve() -> None:
        try:
            await run(
                prompt_server,
                address=args.listen,
                port=args.port,
                verbose=not args.dont_print_server,
                call_on_start=open_page if args.auto_launch else None,
            )
        finally:
            worker.stop(interrupt=executor.close)
            model_management.ram_cache().close()

    return loop, prompt_server, serve


def install_progress_hook(prompt_server: Any) -> None:
    """Let ``comfy.utils.ProgressBar`` report to the running prompt's owner."""
    from execution import install_progress_hook as install

    install(prompt_server)


async def run(
    prompt_server: Any, address: str = "", port: int = 8188, verbose: bool = True, call_on_start: Callable[..., None] | None = None
) -> None:
    """Listen on every comma-separated *address* and serve until cancelled."""
    await asyncio.gather(
        prompt_server.start_multi_address(addresses_of(address, port), call_on_start, verbose), prompt_server.publish_loop()
    )


def addresses_of(listen: str, port: int) -> list[tuple[str, int]]:
    """The (address, port) pairs of the comma-separated addresses of ``--listen``."""
    return [(part.strip(), port) for part in listen.split(",")]


def open_page(scheme: str, address: str, port: int) -> None:
    """Open the page in the user's browser."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, f"[{address}]" if ":" in address else address)
    webbrowser.open(f"{scheme}://{shown}:{port}")


def serve_until_stopped(loop: asyncio.AbstractEventLoop, serve: Serve) -> None:
    """Serve until Ctrl-C or SIGTERM (which ends containers), then close what was opened. The process ends within seconds of the first
    signal, at once after a second: see :class:`StopWatch`, which goes on listening."""
    task = loop.create_task(serve())

    def stop() -> None:
        if args.debug_hang:
            faulthandler.dump_traceback()
        loop.call_soon_threadsafe(task.cancel)

    with StopWatch(stop), contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)


def main() -> int:
    """Serve, or do the one thing a flag asks for; returns the process's exit status."""
    if args.list_feature_flags:
        from comfy_api.feature_flags import CLI_FEATURE_FLAG_REGISTRY

        print(json.dumps(CLI_FEATURE_FLAG_REGISTRY, indent=2))
        return 0
    log_files = [(args.verbose, args.log_file)] if args.log_file else None
    setup_logger(log_level=args.verbose, use_stdout=args.log_stdout, file_outputs=log_files)
    if args.run is not None:
        from app.running.run_once import run_workflow

        return run_workflow(args.run, args.repeat, start_comfyui)
    reserved_ports = ReservedPorts()
    if not args.quick_test_for_ci:
        # Before anything is touched: a second start by mistake must not disturb the server that runs.
        reserved_ports.reserve(addresses_of(args.listen, args.port))
    loop, prompt_server, serve = start_comfyui()
    if args.quick_test_for_ci:
        return 0
    prompt_server.reserved_ports = reserved_ports
    try:
        log.info("Starting server")
        serve_until_stopped(loop, serve)
        log.info("Stopped")
        loop.run_until_complete(prompt_server.close())
    finally:
        prompt_server.temp_folder.release()
    return 0


if __name__ == "__main__":
    if status := main():
        sys.exit(status)
    if args.quick_test_for_ci:
        exit(0)  # noqa: PLR1722  (an embedding script plants its own ``exit`` here)
