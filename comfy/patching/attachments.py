"""What node packs hang on a patcher: callbacks, wrappers, injections, attachments, additional models."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from comfy.patcher_extension import CallbacksMP, PatcherInjection, Registry, WrappersMP
from comfy.patching.model_options import copy_containers
from comfy.patching.protocols import AdditionalModel, CallsBack, Ejectable


class AutoPatcherEjector:
    """A ``with`` block in which the patcher's injections are out of the module.

    With *skip_and_inject_on_exit_only* nothing is injected inside, and everything at the end.
    """

    def __init__(self, model: Ejectable, skip_and_inject_on_exit_only: bool = False) -> None:
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


def call_back(patcher: CallsBack, call_type: str, *arguments: Any) -> None:
    """Call *patcher*'s callbacks for the moment *call_type* with it and *arguments*."""
    for callback in patcher.get_all_callbacks(call_type):
        callback(patcher, *arguments)


class Attachments:
    """Everything that node packs attached to one patcher, by keys of theirs. Owns it; holds neither patcher nor module."""

    def __init__(self) -> None:
        self.callbacks: Registry = CallbacksMP.init_callbacks()
        self.wrappers: Registry = WrappersMP.init_wrappers()
        self.injections: dict[Any, list[PatcherInjection]] = {}
        self.attachments: dict[Any, Any] = {}
        self.additional_models: dict[Any, list[AdditionalModel]] = {}
        self.is_injected = False
        self.skip_injection = False

    def clone(self) -> Attachments:
        """The same for a clone: additional models are cloned, and attachments that have ``on_model_patcher_clone()``."""
        twin = Attachments.__new__(Attachments)
        twin.callbacks = copy_containers(self.callbacks)
        twin.wrappers = copy_containers(self.wrappers)
        twin.injections = copy_containers(self.injections)
        twin.attachments = {
            key: value.on_model_patcher_clone() if hasattr(value, "on_model_patcher_clone") else value
            for key, value in self.attachments.items()
        }
        twin.additional_models = {key: [model.clone() for model in models] for key, models in self.additional_models.items()}
        twin.is_injected = False
        twin.skip_injection = self.skip_injection
        return twin

    def add_callback_with_key(self, call_type: str, key: Any, callback: Callable[..., Any]) -> None:
        """Call *callback* at a moment named in ``CallbacksMP``; *key* is for removing it."""
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

    def add_wrapper_with_key(self, wrapper_type: str, key: Any, wrapper: Callable[..., Any]) -> None:
        """Wrap a function named in ``WrappersMP``; *key* is for removing the wrapper."""
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

    def set_additional_models(self, key: Any, models: list[AdditionalModel]) -> None:
        """Load and clone *models* together with this one."""
        self.additional_models[key] = models

    def remove_additional_models(self, key: Any) -> None:
        """Forget the models under *key*, if any."""
        self.additional_models.pop(key, None)

    def get_additional_models_with_key(self, key: Any) -> list[AdditionalModel]:
        """The models under *key*."""
        return self.additional_models.get(key, [])

    def get_additional_models(self) -> list[AdditionalModel]:
        """The models under every key."""
        return [model for models in self.additional_models.values() for model in models]

    def set_injections(self, key: Any, injections: list[PatcherInjection]) -> None:
        """Change the module by *injections* whenever this patcher is loaded."""
        self.injections[key] = injections

    def remove_injections(self, key: Any) -> None:
        """Forget the injections under *key*, if any."""
        self.injections.pop(key, None)

    def get_injections(self, key: Any) -> list[PatcherInjection] | None:
        """The injections under *key*, or None."""
        return self.injections.get(key)

    def inject(self, patcher: CallsBack) -> None:
        """Put the injections into the module of *patcher*, whose component this is, unless they are there."""
        if self.is_injected or self.skip_injection:
            return
        for injection in [injection for group in self.injections.values() for injection in group]:
            injection.inject(patcher)
            self.is_injected = True
        if self.is_injected:
            call_back(patcher, CallbacksMP.ON_INJECT_MODEL)

    def eject(self, patcher: CallsBack) -> None:
        """Take the injections out of the module of *patcher*, if they are there."""
        if not self.is_injected:
            return
        for injection in [injection for group in self.injections.values() for injection in group]:
            injection.eject(patcher)
        self.is_injected = False
        call_back(patcher, CallbacksMP.ON_EJECT_MODEL)


def nested_models(models: list[AdditionalModel]) -> list[AdditionalModel]:
    """The patchers *models*, their additional models, those of these, and so on; each once, nearest first."""
    found: dict[int, AdditionalModel] = {}
    waiting = list(models)
    while waiting:
        model = waiting.pop(0)
        if id(model) not in found:
            found[id(model)] = model
            waiting += model.get_additional_models()
    return list(found.values())
