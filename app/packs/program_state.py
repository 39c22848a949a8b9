"""What a pack may change of the program around it while it loads, remembered, so that a pack that fails can be undone whole."""

import collections
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from types import MappingProxyType, ModuleType
from typing import Any

from aiohttp.web_app import CleanupContext
from aiosignal import Signal
from frozenlist import FrozenList

from comfy.progress_bar import hook_state
from comfy_api.internal.replacement_receiver import replacement_receiver
from comfy_execution.cache_provider import _registry as provider_registry
from comfy_execution.nodes_graph.registered_classes import class_source

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
# Below the program's folder, but not the program.
_FOREIGN = ("custom_nodes", "site-packages", "tests", "tests-unit")
_NESTED = 3
_TABLES = (dict, collections.OrderedDict, collections.defaultdict)
# Those of aiohttp hold its middlewares and what is called at start and end.
_CONTAINERS = frozenset({*_TABLES, list, tuple, set, FrozenList, Signal, CleanupContext})
# Of the server: where it is in its work, which goes on.
_AT_WORK = frozenset({"number", "client_id", "last_node_id", "last_prompt_id", "client_session"})
# Python sets these on classes when somebody asks for them.
_ASKED_FOR = frozenset({"__annotations__", "__doc__", "__abstractmethods__"})


def is_program_module(module: object) -> bool:
    """Whether *module* is a module of this program, and not of a pack or a library."""
    path = getattr(module, "__file__", None)
    if not isinstance(module, ModuleType) or not isinstance(path, str) or not path.startswith(ROOT + os.sep):
        return False
    return not any(part in _FOREIGN for part in path[len(ROOT) :].split(os.sep))


class ProgramState:
    """The attributes of the program's modules and classes, the lists and tables in them, and what packs register with the server.

    Entered (``with``) before a pack loads; ``restore`` if it failed. Modules of the program that are imported for the first time while it
    is open are remembered as they are right after that. From one thread.
    """

    def __init__(self, registries: Iterable[Any] = ()) -> None:
        """*registries* are objects that packs change or register with, besides those of the API that are known here."""
        self._registries = (provider_registry, class_source, hook_state, replacement_receiver, *registries)
        self._namespaces: list[tuple[Any, dict[str, Any]]] = []
        self._contents: list[tuple[Any, Any]] = []
        self._modules: dict[str, ModuleType] = {}
        self._seen: set[int] = set()
        self._watch = _ImportWatch(self._remember_module)

    def __enter__(self) -> "ProgramState":
        self._modules = {name: module for name, module in list(sys.modules.items()) if is_program_module(module)}
        for module in self._modules.values():
            self._remember_module(module)
        for instance in self._registries:
            self._remember_namespace(instance, vars(instance))
        for listing in (sys.path, sys.meta_path, sys.path_hooks):
            self._remember_contents(listing, 0)
        sys.meta_path.insert(0, self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        if self._watch in sys.meta_path:
            sys.meta_path.remove(self._watch)

    def restore(self) -> None:
        """Put everything back as it was. Values that were changed in place, other than lists, sets and tables, stay changed."""
        for name, module in self._modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
        for owner, before in self._namespaces:
            _restore_attributes(owner, before)
        for container, before in self._contents:
            _restore_contents(container, before)

    def _remember_module(self, module: ModuleType) -> None:
        self._modules.setdefault(module.__name__, module)
        self._remember_namespace(module, vars(module))

    def _remember_namespace(self, owner: Any, namespace: "dict[str, Any] | MappingProxyType[str, Any]") -> None:
        left = [(owner, namespace)]
        while left:
            owner, namespace = left.pop()
            if id(owner) in self._seen:
                continue
            self._seen.add(id(owner))
            before = dict(namespace)
            self._namespaces.append((owner, before))
            for name, value in before.items():
                kind = type(value)
                if kind in _CONTAINERS:
                    if name == "__all__" or not name.startswith("__"):
                        self._remember_contents(value, 0)
                elif issubclass(kind, type) and value.__module__ in self._modules:
                    left.append((value, vars(value)))

    def _remember_contents(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind not in _CONTAINERS or id(value) in self._seen or depth > _NESTED:
            return
        self._seen.add(id(value))
        if kind is not tuple:
            self._contents.append((value, dict(value) if kind in _TABLES else set(value) if kind is set else list(value)))
        if kind is not set:
            for item in list(value.values()) if kind in _TABLES else list(value):
                self._remember_contents(item, depth + 1)


class _ImportWatch(importlib.abc.MetaPathFinder):
    """Calls *note* with each module of the program right after its first import, before anybody else can change it."""

    def __init__(self, note: Callable[[ModuleType], None]) -> None:
        self._note = note

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The usual specification of a module of the program; None for others, which leaves them to the other finders."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader) or not _is_program_file(spec.origin):
            return None
        loader = spec.loader
        execute = loader.exec_module

        def execute_and_note(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            execute(module)
            self._note(module)

        loader.exec_module = execute_and_note  # type: ignore[method-assign]
        return spec


def _is_program_file(path: str | None) -> bool:
    stand_in = ModuleType("any")
    stand_in.__file__ = path
    return is_program_module(stand_in)


def _restore_attributes(owner: Any, before: dict[str, Any]) -> None:
    now = vars(owner)
    kept = _ASKED_FOR if isinstance(owner, type) else frozenset() if isinstance(owner, ModuleType) else _AT_WORK
    for name, value in before.items():
        if name not in kept and (name not in now or now[name] is not value):
            _set(owner, name, value)
    for name in [name for name in now if name not in before and name not in kept]:
        if not (isinstance(owner, ModuleType) and _is_made_by_us(now[name])):
            _delete(owner, name)


def _is_made_by_us(value: Any) -> bool:
    """Whether the value of a name that came meanwhile is a module, or defined in the program: our modules make some names when they are
    first asked for, and a submodule that is taken away would not come back."""
    return isinstance(value, ModuleType) or is_program_module(sys.modules.get(str(getattr(value, "__module__", None))))


def _set(owner: Any, name: str, value: Any) -> None:
    # Past a ``__setattr__`` of its own: some classes refuse to be changed.
    if isinstance(owner, type):
        type.__setattr__(owner, name, value)
    else:
        vars(owner)[name] = value


def _delete(owner: Any, name: str) -> None:
    if isinstance(owner, type):
        type.__delattr__(owner, name)
    else:
        del vars(owner)[name]


def _restore_contents(container: Any, before: Any) -> None:
    if isinstance(container, MutableSequence):
        if getattr(container, "frozen", False) is True or _is_same(container, before):
            return
        container[:] = before
    elif isinstance(container, dict):
        if not (_is_same(container, before) and _is_same(container.values(), before.values())):
            container.clear()
            container.update(before)
    elif container != before:
        container.clear()
        container.update(before)


def _is_same(some: Iterable[Any], others: Iterable[Any]) -> bool:
    left, right = list(some), list(others)
    return len(left) == len(right) and all(one is other for one, other in zip(left, right, strict=True))
