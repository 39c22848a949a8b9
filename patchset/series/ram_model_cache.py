"""Series ``ram-model-cache``: models that left the executor's cache or the accelerator stay in host RAM, up to a cap."""

from patchset.series.definition import Series, Version
from patchset.statement_transforms import ReplaceStatement
from patchset.transforms import AddImport, Decorate, InsertAfter, Transform

FLAGS, MANAGER, LOADERS, EXECUTION, SERVER = ("comfy/cli_args.py", "comfy/model_management.py", "comfy/sd.py", "execution.py", "server.py")
NODES, CLIP_VISION, CONTROLNET = "nodes.py", "comfy/clip_vision.py", "comfy/controlnet.py"
OWNER = "comfy.model_management.ram_model_cache"
NEXT_FLAGS = "attn_group = parser.add_mutually_exclusive_group()\n"
NEW_FLAGS = """
parser.add_argument("--ram-model-cache-mb", type=int, default=0, metavar="MB", help="Keep loaded models in up to this much RAM when they leave VRAM or the node cache, so that they are not read from disk again. Default: 0 (off).")
parser.add_argument("--ram-model-cache-ttl", type=float, default=None, metavar="SECONDS", help="Let a model kept in RAM go when it was not used for this long.")

"""  # noqa: E501 (upstream writes one flag per line)
STATS_REPLY = "return web.json_response(system_stats)\n"

MESSAGE = """
A model whose node outputs leave the executor's cache is freed, and read from disk again when a workflow asks for it: two
checkpoints used in turn are read at every switch, however much RAM is free.

With --ram-model-cache-mb N, loaders keep what they built (per file, part and options) in up to N MB of host RAM and hand out
clones of it. The cache is owned by model_management, bounded, off unless the flag is given, gives way to memory pressure, and
says in the log and in the prompt's history where each model came from and why one was read again. At 0 every
decorator returns the function it was given.
"""

TESTS = "tests-unit/comfy_test/ram_model_cache"
CACHE_TESTS = (
    "conftest",
    "ram_cache_fakes",
    "test_checksums",
    "test_host_memory",
    "test_host_memory_group",
    "test_ram_cache_drops",
    "test_ram_cache_policy",
    "test_ram_cache_receipts",
    "test_ram_cache_storage",
    "test_ram_cache_upkeep",
    "test_ram_model_cache",
    "test_ram_model_cache_patcher",
    "test_ram_model_cache_races",
    "test_ram_policy_planning",
    "test_weights_key",
)
HOOKS = "patchset/modules/ram_model_cache_hooks"
HOOK_TESTS = tuple(f"ram_model_cache_{name}_test.py" for name in ("owner", "loaders", "dynamic", "upstream"))


def edits(version: Version) -> list[Transform]:
    """The same places in every supported version; 0.23 began to annotate the manager's list."""
    models = "current_loaded_models = []" if version < (0, 23, 0) else "current_loaded_models: list[LoadedModel] = []"
    owned = "ram_model_cache = ModelCacheOwner.from_args(args, current_loaded_models, lambda: throw_exception_if_processing_interrupted())"
    return [
        ReplaceStatement(FLAGS, "", NEXT_FLAGS, NEW_FLAGS.lstrip() + NEXT_FLAGS),
        AddImport(MANAGER, "comfy.ram_model_cache_hooks.owner", "ModelCacheOwner", "comfy.cli_args", "args"),
        ReplaceStatement(MANAGER, "", models, f"{models}\n{owned}\n"),
        Decorate(MANAGER, "free_memory", "ram_model_cache.unloads"),
        Decorate(MANAGER, "load_models_gpu", "ram_model_cache.loads"),
        Decorate(MANAGER, "cleanup_models_gc", "ram_model_cache.undisturbed"),
        Decorate(LOADERS, "load_checkpoint_guess_config", "model_management.ram_model_cache.checkpoint"),
        Decorate(LOADERS, "load_clip", "model_management.ram_model_cache.text_encoder"),
        Decorate(LOADERS, "load_diffusion_model", "model_management.ram_model_cache.diffusion_model"),
        Decorate(CLIP_VISION, "load", f"{OWNER}.clip_vision"),
        Decorate(CONTROLNET, "load_controlnet", f"{OWNER}.controlnet"),
        Decorate(NODES, "VAELoader.load_vae", f"{OWNER}.vae_node(folder_paths.get_full_path)"),
        Decorate(EXECUTION, "execute", f"{OWNER}.after_node"),
        Decorate(EXECUTION, "PromptExecutor.execute_async", f"{OWNER}.with_receipts"),
        InsertAfter(EXECUTION, "PromptExecutor.reset", "self.success = True", f"{OWNER}.clear()\n"),
        InsertAfter(EXECUTION, "PromptQueue.__init__", "self.flags = {}", f"{OWNER}.watch_queue(self)\n"),
        ReplaceStatement(
            SERVER,
            "PromptServer.__init__.system_stats",
            STATS_REPLY,
            f'system_stats["system"].update({OWNER}.system_stats())\n{STATS_REPLY}',
        ),
    ]


SERIES = Series(
    name="ram-model-cache",
    subject="Keep models in RAM, up to a cap, instead of reading them again",
    message=MESSAGE,
    edits=edits,
    modules=(("comfy/ram_model_cache", "comfy/ram_model_cache"), (HOOKS, "comfy/ram_model_cache_hooks")),
    files=(("comfy/units.py", "comfy/units.py"),),
    tests=(*((f"{TESTS}/{name}.py",) * 2 for name in CACHE_TESTS), *((f"{HOOKS}/{name}", f"{TESTS}/{name}") for name in HOOK_TESTS)),
)
