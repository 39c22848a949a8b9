"""What the series need of ComfyUI, described in our own words: names, arguments, and the statements that are looked for.

Read in public files of 0.36 to 0.38 and in the releases before; none of their text beyond the statements that are anchors. ``files``
makes source files of the description.
"""

import textwrap

# Of each function: its arguments, and the statements in it that are anchors. "OLD" and "NEW" where newer versions differ.
OLD, NEW = "until 0.35", "since 0.36"
EXECUTE = "server, dynprompt, caches, current_item, extra_data, executed, prompt_id, execution_list, pending_subgraph_results, \
pending_async_nodes, ui_outputs"
DESCRIPTION = {
    "comfyui_version.py": {OLD: ['__version__ = "0.33.0"'], NEW: ['__version__ = "0.38.1"']},
    "comfy/cli_args.py": [
        "import argparse",
        "",
        'parser.add_argument("--disable-metadata", action="store_true", help="Disable saving prompt metadata in files.")',
        'parser.add_argument("--force-channels-last", action="store_true", help="Force channels last format when inferencing the models.")',
        "",
        "attn_group = parser.add_mutually_exclusive_group()",
    ],
    "comfy/model_management.py": [
        "from comfy.cli_args import args, PerformanceFeature",
        "current_loaded_models: list[LoadedModel] = []",
        ("free_memory", "memory_required, device", []),
        ("load_models_gpu", "models", []),
        ("cleanup_models_gc", "", []),
        ("throw_exception_if_processing_interrupted", "", []),
    ],
    "comfy/model_patcher.py": [
        "import uuid",
        "from comfy.patcher_extension import CallbacksMP, WrappersMP",
        ("ModelPatcher", None, [("add_patches", "self, patches", ["p = set()", "self.patches_uuid = uuid.uuid4()"])]),
    ],
    "comfy/sd.py": [
        "from comfy import model_management",
        *((name, "path", []) for name in ("load_clip", "load_checkpoint_guess_config", "load_diffusion_model")),
    ],
    "comfy/utils.py": ["from comfy.cli_args import args", ("load_torch_file", "ckpt", [])],
    "comfy/clip_vision.py": [("load", "ckpt_path", [])],
    "comfy/controlnet.py": [("load_controlnet", "ckpt_path", [])],
    "nodes.py": [("VAELoader", None, [("load_vae", "self, vae_name", [])])],
    "server.py": {
        OLD: [("PromptServer", None, [("__init__", "self, loop", ["STATS"])])],
        NEW: [("PromptServer", None, [("__init__", "self, loop, asset_manager", ["STATS"])])],
    },
    "comfy_execution/graph_utils.py": [("is_link", "value", [])],
    "comfy_execution/caching.py": [
        "import asyncio",
        "from comfy_execution.graph_utils import is_link",
        "import nodes",
        (
            "CacheKeySetInputSignature",
            None,
            [
                ("__init__", "self, dynprompt, node_ids, is_changed_cache", ["self.is_changed_cache = is_changed_cache"]),
                ("include_node_id_in_input", "self", []),
                ("async get_node_signature", "self, dynprompt, node_id", ["self.get_ordered_ancestry(dynprompt, node_id)"]),
                ("async get_immediate_node_signature", "self, dynprompt, node_id, order", ["include_unique_id_in_input(node_id)"]),
                ("get_ordered_ancestry", "self, dynprompt, node_id", ["self.get_ordered_ancestry_internal(dynprompt, node_id)"]),
                ("get_ordered_ancestry_internal", "self, dynprompt, node_id", ["self.get_ordered_ancestry_internal(dynprompt, node_id)"]),
            ],
        ),
        (
            "BasicCache",
            None,
            [
                ("__init__", "self, key_class, enable_providers=False", ["self._pending_store_tasks: set = set()"]),
                ("async set_prompt", "self, dynprompt, node_ids, is_changed_cache", ["self.initialized = True"]),
                ("async _set_immediate", "self, node_id, value", ["await self._notify_providers_store(node_id, cache_key, value)"]),
                ("async _get_immediate", "self, node_id", ["external_result = await self._check_providers_lookup(node_id, cache_key)"]),
                ("async _notify_providers_store", "self, node_id, cache_key, value", ["STORE"]),
                ("async _safe_provider_store", "provider, context, cache_value", ["await provider.on_store(context, cache_value)"]),
                ("async _check_providers_lookup", "self, node_id, cache_key", ["LOOKUP"]),
                ("_is_external_cacheable_value", "self, value", ["return hasattr(value, 'outputs')"]),
                ("_get_class_type", "self, node_id", ["return self.dynprompt.get_node(node_id)"]),
                ("_build_context", "self, node_id, cache_key", ["return _serialize_cache_key(cache_key)"]),
                (
                    "async _ensure_subcache",
                    "self, node_id, children_ids",
                    [
                        "subcache = BasicCache(self.key_class)",
                        "await subcache.set_prompt(self.dynprompt, children_ids, self.is_changed_cache)",
                    ],
                ),
            ],
        ),
    ],
    "comfy_api/latest/_caching.py": ["PROVIDERS"],
    "comfy_api/latest/__init__.py": [
        ("ComfyAPI_latest", None, [("Caching", None, ["from ._caching import CacheProvider, CacheContext, CacheValue"])])
    ],
    "execution.py": [
        "import asyncio",
        "from comfy_execution.cache_provider import _has_cache_providers, _get_cache_providers, _logger as _cache_logger",
        "from comfy_execution.graph_utils import GraphBuilder, is_link",
        {
            OLD: [("async execute", EXECUTE, ["LAZY", "EXPANDED"])],
            NEW: [("async execute", EXECUTE + ", asset_manager: AssetManager", ["LAZY", "EXPANDED"])],
        },
        (
            "PromptExecutor",
            None,
            [
                {
                    OLD: [("__init__", "self, server, cache_type=False, cache_args=None", ["self.server = server"])],
                    NEW: [("__init__", "self, server, cache_type=False, cache_args=None, asset_manager=None", ["self.server = server"])],
                },
                ("reset", "self", ["self.success = True"]),
                ("_notify_prompt_lifecycle", "self, event: str, prompt_id: str", ["provider.on_prompt_end(prompt_id)"]),
                ("async execute_async", "self, prompt, prompt_id, extra_data={}, execute_outputs=[]", ["PROMPT"]),
            ],
        ),
        {
            OLD: [("async validate_inputs", "prompt_id, prompt, item, validated, visiting=None", [])],
            NEW: [("async validate_inputs", "prompt_id, prompt, item, validated, visiting=None", [])],
        },
        ("PromptQueue", None, [("__init__", "self, server", ["self.flags = {}"])]),
    ],
    "main.py": [
        "from protocol import BinaryEventTypes",
        {
            OLD: ["RUN", "        asset_seeder.shutdown()", "        cleanup_temp()"],
            NEW: ["RUN", "        prompt_server.asset_manager.shutdown()"],
        },
    ],
}
# Longer statements that are anchors, by the word that stands for them above.
BLOCKS = {
    "RUN": 'if __name__ == "__main__":\n    try:\n        start()\n    finally:',
    "STATS": "async def system_stats(request):\n    system_stats = {}\n    return web.json_response(system_stats)",
    "PROVIDERS": 'class CacheProvider(ABC):\n    """Abstract base class for external cache providers.\n'
    "    Exceptions from provider methods are caught by the caller and never break execution.\n"
    '    """\n\n    async def on_store(self, context, value):\n        """Called after local store. Dispatched via asyncio.create_task."""',
    "STORE": "if context is None:\n    return\nfor provider in _get_cache_providers():\n"
    "    if provider.should_cache(context, cache_value):\n"
    "        task = asyncio.create_task(self._safe_provider_store(provider, context, cache_value))\n"
    "        self._pending_store_tasks.add(task)\n        task.add_done_callback(self._pending_store_tasks.discard)",
    "LOOKUP": "if context is None:\n    return None\nfor provider in _get_cache_providers():\n"
    "    result = await provider.on_lookup(context)",
    "LAZY": "if len(required_inputs) > 0:\n    for i in required_inputs:\n        execution_list.make_input_strong_link(unique_id, i)",
    "EXPANDED": "for node_id in new_output_ids:\n    execution_list.add_node(node_id)\n    execution_list.cache_link(node_id, unique_id)",
    "PROMPT": 'self._notify_prompt_lifecycle("start", prompt_id)\ntry:\n    cache_results = await asyncio.gather(\n'
    "        *(self.caches.outputs.get(node_id) for node_id in node_ids)\n    )\nfinally:\n"
    '    self._notify_prompt_lifecycle("end", prompt_id)',
}


def files(age):
    """{path: source} of the description as it is in versions of *age* (``OLD`` or ``NEW``)."""
    return {path: _source(rows, age) for path, rows in DESCRIPTION.items()}


def _source(rows, age):
    if isinstance(rows, dict):
        return _source(rows[age], age)
    parts = []
    for row in rows:
        if isinstance(row, dict):
            parts.append(_source(row[age], age).rstrip("\n"))
        elif isinstance(row, str):
            parts.append(BLOCKS.get(row, row))
        else:
            name, arguments, inside = row
            kind, _, name = f" {name}".rpartition(" ")
            head = f"class {name}:" if arguments is None else f"{kind.strip()} def {name}({arguments}):".strip()
            parts.append(f"{head}\n{textwrap.indent(_source(inside, age) if inside else 'pass', '    ')}\n")
    return "\n".join(parts).rstrip("\n") + "\n"
