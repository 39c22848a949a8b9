"""Nodes over preloaded models: cached loaders, selectors, and what is held."""

import importlib
import json
from typing import Any

from comfy_api.latest import io

from .config import KINDS, Wanted, generated_key
from .loader_calls import Unloadable, choices, loader_call
from .preloader import Entry, Preloader
from .startup import Preloading

CATEGORY = "Keepwarm/preload"
NOTHING = "(nothing preloaded)"
_OUTPUTS = {"checkpoints": (io.Model, io.Clip, io.Vae), "text_encoders": (io.Clip,), "diffusion_models": (io.Model,), "vaes": (io.Vae,)}
_NAMES = {"checkpoints": "Checkpoint", "text_encoders": "Text Encoder", "diffusion_models": "Diffusion Model", "vaes": "VAE"}
_NO_FILE = "none"


def node_classes(preloading: Preloading) -> list[type[io.ComfyNode]]:
    """The pack's ten nodes, over *preloading*."""
    loaders = [_cached_loader(kind, preloading) for kind in KINDS]
    return [*loaders, *(_selector(kind, preloading) for kind in KINDS), _info_node(preloading), _status_node(preloading)]


def _cached_loader(kind: str, preloading: Preloading) -> type[io.ComfyNode]:
    """The node that loads a model of *kind* by its file, from where it is kept if it is."""
    name = _NAMES[kind]

    class CachedLoader(io.ComfyNode):
        """Loads by file name through the server's own loader."""

        READS_AHEAD = dict.fromkeys(_file_inputs(kind), KINDS[kind].folder)

        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id=f"Keepwarm{name.replace(' ', '')}Loader",
                display_name=f"Load {name} (Keepwarm)",
                category=CATEGORY,
                description=f"Loads a {KINDS[kind].name} by its file name and says whether it was preloaded.",
                inputs=_loader_inputs(kind),
                outputs=[*(output.Output() for output in _OUTPUTS[kind]), io.String.Output(display_name="status")],
            )

        @classmethod
        def execute(cls, **inputs: Any) -> io.NodeOutput:
            wanted = _wanted(kind, inputs)
            try:
                call = loader_call(wanted, importlib.import_module("nodes").NODE_CLASS_MAPPINGS, importlib.import_module("folder_paths"))
            except Unloadable as error:
                raise ValueError(error.problem.text) from None
            held = preloading.preloader is not None and preloading.preloader.keeper.holds(call)
            return io.NodeOutput(*call.run(), "preloaded" if held else "not preloaded: loaded the standard way")

    return CachedLoader


def _selector(kind: str, preloading: Preloading) -> type[io.ComfyNode]:
    """The node that takes a preloaded model of *kind* by its key."""
    name = _NAMES[kind]

    class Selector(io.ComfyNode):
        """Takes a model of the preload config."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id=f"KeepwarmPreloaded{name.replace(' ', '')}",
                display_name=f"Preloaded {name} (Keepwarm)",
                category=CATEGORY,
                description=f"A {KINDS[kind].name} of the preload config, by its key.",
                inputs=[io.Combo.Input("cache_key", options=preloading.keys(kind) or [NOTHING])],
                outputs=[*(output.Output() for output in _OUTPUTS[kind]), io.String.Output(display_name="status")],
            )

        @classmethod
        def execute(cls, cache_key: str) -> io.NodeOutput:
            preloader, entry = _entry(preloading, cache_key)
            held = preloader.keeper.holds(entry.call)
            return io.NodeOutput(*entry.call.run(), "preloaded" if held else "no longer held: loaded the standard way")

    return Selector


def _info_node(preloading: Preloading) -> type[io.ComfyNode]:
    class CachedModelInfo(io.ComfyNode):
        """All of the preload config."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id="KeepwarmCachedModelInfo",
                display_name="Cached Model Info (Keepwarm)",
                category=CATEGORY,
                description="Every model of the preload config: what it is, whether it is held, its size and what loading took, as JSON.",
                inputs=[],
                outputs=[io.String.Output(display_name="info")],
                not_idempotent=True,
            )

        @classmethod
        def fingerprint_inputs(cls) -> float:
            return float("nan")

        @classmethod
        def execute(cls) -> io.NodeOutput:
            return io.NodeOutput(json.dumps(preloading.described(), indent=2, ensure_ascii=False))

    return CachedModelInfo


def _status_node(preloading: Preloading) -> type[io.ComfyNode]:
    class CacheStatus(io.ComfyNode):
        """One model of the preload config."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id="KeepwarmCacheStatus",
                display_name="Cache Status (Keepwarm)",
                category=CATEGORY,
                description="Whether a model of the preload config is held, and in words what is known of it.",
                inputs=[io.Combo.Input("cache_key", options=preloading.keys(*KINDS) or [NOTHING])],
                outputs=[io.Boolean.Output(display_name="held"), io.String.Output(display_name="status")],
                not_idempotent=True,
            )

        @classmethod
        def fingerprint_inputs(cls, cache_key: str) -> float:
            return float("nan")

        @classmethod
        def execute(cls, cache_key: str) -> io.NodeOutput:
            preloader, entry = _entry(preloading, cache_key)
            shown = preloader.described_entry(entry)
            return io.NodeOutput(shown["state"] == "held", json.dumps(shown, indent=2, ensure_ascii=False))

    return CacheStatus


def _entry(preloading: Preloading, key: str) -> tuple[Preloader, Entry]:
    preloader = preloading.preloader
    entry = preloader.find(key) if preloader else None
    if preloader is None or entry is None:
        raise ValueError(f"No preloaded model has the key {key!r}; name it in the file of --preload-config")
    return preloader, entry


def _loader_inputs(kind: str) -> list[Any]:
    """The inputs of the cached loader: files as the folders list them now, and the server's own choices for the rest."""
    folders, classes = importlib.import_module("folder_paths"), importlib.import_module("nodes").NODE_CLASS_MAPPINGS
    files = folders.get_filename_list(KINDS[kind].folder)
    if kind == "text_encoders":
        types = list(dict.fromkeys(kind for node in ("CLIPLoader", "DualCLIPLoader") for kind in choices(classes[node], "type")))
        return [
            io.Combo.Input("clip_name1", options=files),
            io.Combo.Input("clip_name2", options=[_NO_FILE, *files], default=_NO_FILE),
            io.Combo.Input("clip_name3", options=[_NO_FILE, *files], default=_NO_FILE),
            io.Combo.Input("type", options=types),
            io.Combo.Input("device", options=["default", "cpu"], default="default"),
        ]
    file_input = io.Combo.Input(KINDS[kind].file_field, options=files)
    if kind == "diffusion_models":
        return [file_input, io.Combo.Input("weight_dtype", options=choices(classes["UNETLoader"], "weight_dtype"))]
    return [file_input]


def _file_inputs(kind: str) -> tuple[str, ...]:
    """The inputs of the cached loader that name files."""
    return ("clip_name1", "clip_name2", "clip_name3") if kind == "text_encoders" else (KINDS[kind].file_field,)


def _wanted(kind: str, inputs: dict[str, Any]) -> Wanted:
    """The node's inputs as an entry of a config."""
    if kind == "text_encoders":
        files = tuple(inputs[name] for name in _file_inputs(kind) if inputs[name] != _NO_FILE)
        options = {"type": inputs["type"], "device": inputs["device"]}
    else:
        files = (inputs[KINDS[kind].file_field],)
        options = {name: inputs[name] for name in KINDS[kind].options}
    return Wanted(kind, _NAMES[kind], files, options, generated_key(KINDS[kind].name, files, options))
