"""What node packs hang on a patcher: callbacks, wrappers, injections, attachments, additional models, object patches."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from comfy.patcher_extension import CallbacksMP, PatcherInjection, Registry
from comfy.patching.attribute_paths import get_attr, set_attr


class AutoPatcherEjector:
    """A ``with`` block in which the patcher's injections are out of the module.

    With *skip_and_inject_on_exit_only* nothing is injected inside, and everything at the end.
    """

    def __init__(self, model: Any, skip_and_inject_on_exit_only: bool = False) -> None:
        self.model = model
        self.skip_and_inject_on_exit_only = skip_and_inject_on_exit_only
        self.was_injected = False
        self.prev_skip_injection = False

    def __enter__(self) -> None:
        self.prev_skip_injection = self.model.skip_injection
        self.was_injected = self.model.is_injected
        if self.skip_and_inject_on_exit_only:
            self.model.skip_injection = True
        self.model.eject_model()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.model.skip_injection = self.prev_skip_injection
        if error is None and (self.skip_and_inject_on_exit_only or self.was_injected):
            self.model.inject_model()


class Attachments:
    """The part of ``ModelPatcher`` that keeps what node packs attach."""

    model: Any
    callbacks: Registry
    wrappers: Registry
    injections: dict[Any, list[PatcherInjection]]
    attachments: dict[Any, Any]
    additional_models: dict[Any, list[Any]]
    object_patches: dict[str, Any]
    object_patches_backup: dict[str, Any]
    is_injected: bool
    skip_injection: bool

    def add_callback(self, call_type: str, callback: Callable[..., Any]) -> None:
        """Call *callback* at a moment named in ``CallbacksMP``."""
        self.add_callback_with_key(call_type, None, callback)

    def add_callback_with_key(self, call_type: str, key: Any, callback: Callable[..., Any]) -> None:
        """The same under *key*, by which it can be removed."""
        self.callbacks.setdefault(call_type, {}).setdefault(key, []).append(callback)

    def remove_callbacks_with_key(self, call_type: str, key: Any) -> None:
        """Remove the callbacks under *key*, if any."""
        self.callbacks.get(call_type, {}).pop(key, None)

    def get_callbacks(self, call_type: str, key: Any) -> list[Callable[..., Any]]:
        """The callbacks under *key*."""
        return self.callbacks.get(call_type, {}).get(key, [])

    def get_all_callbacks(self, call_type: str) -> list[Callable[..., Any]]:
        """The callbacks under every key, in order."""
        return [callback for callbacks in self.callbacks.get(call_type, {}).values() for callback in callbacks]

    def _call_back(self, call_type: str, *arguments: Any) -> None:
        for callback in self.get_all_callbacks(call_type):
            callback(self, *arguments)

    def add_wrapper(self, wrapper_type: str, wrapper: Callable[..., Any]) -> None:
        """Wrap a function named in ``WrappersMP``."""
        self.add_wrapper_with_key(wrapper_type, None, wrapper)

    def add_wrapper_with_key(self, wrapper_type: str, key: Any, wrapper: Callable[..., Any]) -> None:
        """The same under *key*, by which it can be removed."""
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, wrapper_type: str, key: Any) -> None:
        """Remove the wrappers under *key*, if any."""
        self.wrappers.get(wrapper_type, {}).pop(key, None)

    def get_wrappers(self, wrapper_type: str, key: Any) -> list[Callable[..., Any]]:
        """The wrappers under *key*."""
        return self.wrappers.get(wrapper_type, {}).get(key, [])

    def get_all_wrappers(self, wrapper_type: str) -> list[Callable[..., Any]]:
        """The wrappers under every key, in order."""
        return [wrapper for wrappers in self.wrappers.get(wrapper_type, {}).values() for wrapper in wrappers]

    def set_attachments(self, key: Any, attachment: Any) -> None:
        """Keep any object with the model. Clones share it unless it has ``on_model_patcher_clone()``."""
        self.attachments[key] = attachment

    def remove_attachments(self, key: Any) -> None:
        """Forget the attachment under *key*, if any."""
        self.attachments.pop(key, None)

    def get_attachment(self, key: Any) -> Any:
        """The attachment under *key*, or None."""
        return self.attachments.get(key)

    def set_additional_models(self, key: Any, models: list[Any]) -> None:
        """Load and clone *models* together with this one."""
        self.additional_models[key] = models

    def remove_additional_models(self, key: Any) -> None:
        """Forget the models under *key*, if any."""
        self.additional_models.pop(key, None)

    def get_additional_models_with_key(self, key: Any) -> list[Any]:
        """The models under *key*."""
        return self.additional_models.get(key, [])

    def get_additional_models(self) -> list[Any]:
        """The models under every key."""
        return [model for models in self.additional_models.values() for model in models]

    def get_nested_additional_models(self) -> list[Any]:
        """The additional models, theirs, and so on; each once, nearest first."""
        found: dict[int, Any] = {}
        waiting = self.get_additional_models()
        while waiting:
            model = waiting.pop(0)
            if id(model) not in found:
                found[id(model)] = model
                waiting += model.get_additional_models()
        return list(found.values())

    def set_injections(self, key: Any, injections: list[PatcherInjection]) -> None:
        """Change the module by *injections* whenever this patcher is loaded."""
        self.injections[key] = injections

    def remove_injections(self, key: Any) -> None:
        """Forget the injections under *key*, if any."""
        self.injections.pop(key, None)

    def get_injections(self, key: Any) -> list[PatcherInjection] | None:
        """The injections under *key*, or None."""
        return self.injections.get(key)

    def use_ejected(self, skip_and_inject_on_exit_only: bool = False) -> AutoPatcherEjector:
        """A ``with`` block in which the injections are out of the module."""
        return AutoPatcherEjector(self, skip_and_inject_on_exit_only)

    def inject_model(self) -> None:
        """Put the injections into the module, unless they are there."""
        if self.is_injected or self.skip_injection:
            return
        for injection in [injection for group in self.injections.values() for injection in group]:
            injection.inject(self)
            self.is_injected = True
        if self.is_injected:
            self._call_back(CallbacksMP.ON_INJECT_MODEL)

    def eject_model(self) -> None:
        """Take the injections out of the module, if they are there."""
        if not self.is_injected:
            return
        for injection in [injection for group in self.injections.values() for injection in group]:
            injection.eject(self)
        self.is_injected = False
        self._call_back(CallbacksMP.ON_EJECT_MODEL)

    def add_object_patch(self, name: str, obj: Any) -> None:
        """Replace the attribute at the dotted path *name* of the module while this patcher is loaded.

        A layer or a weight may also go by ComfyUI's path, like ``diffusion_model.time_embed.0``.
        """
        self.object_patches[name] = obj

    def get_model_object(self, name: str) -> Any:
        """The object at the dotted path *name* as this patcher sees it, loaded or not. Raises ``AttributeError``."""
        if name in self.object_patches:
            return self.object_patches[name]
        if name in self.object_patches_backup:
            return self.object_patches_backup[name]
        return get_attr(self.model, _own_path(self.model, name))

    def _apply_object_patches(self) -> None:
        for name, replacement in self.object_patches.items():
            before = set_attr(self.model, _own_path(self.model, name), replacement)
            self.object_patches_backup.setdefault(name, before)

    def _restore_object_patches(self) -> None:
        for name, original in reversed(list(self.object_patches_backup.items())):
            set_attr(self.model, _own_path(self.model, name), original)
        self.object_patches_backup.clear()


def _own_path(module: Any, name: str) -> str:
    """The path in *module* of the layer or weight that ComfyUI calls *name*; *name* itself for everything else.

    Only layers with a weight of their own, kept in one piece and in the shape ComfyUI knows, have a path of ComfyUI's.
    """
    names = getattr(module, "weight_names", None)
    if names is None:
        return name
    for suffix in ("", ".weight"):
        parts = names.get(name + suffix, ())
        if len(parts) == 1 and parts[0].shape is None:
            return parts[0].parameter.removesuffix(suffix)
    return name
