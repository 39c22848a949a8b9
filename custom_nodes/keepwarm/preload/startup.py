"""Preloading as a part of the server's start: after every pack is loaded, before the port answers."""

import asyncio
import importlib
import logging
import os
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from .config import ConfigUnreadable, read_config
from .keepers import keeper_for
from .preloader import Entry, Preloader, State, make_plan, plan_text
from .rest import missing_models

log = logging.getLogger(__name__)

ENVIRONMENT = "KEEPWARM_PRELOAD_CONFIG"


class Preloading:
    """The process's preloading: nothing to do until a config is named. Its methods are called on the server's loop unless they say so."""

    def __init__(self) -> None:
        self.preloader: Preloader | None = None
        self._moves_to_device = False
        self._verbose = False
        self._restored = 0

    def join(self, args: Any, server: Any, environment: Mapping[str, str] | None = None) -> None:
        """Have *server* preload at its start what the flag ``--preload-config`` or the environment names, and add the routes."""
        environment = os.environ if environment is None else environment
        path = getattr(args, "preload_config", None) or environment.get(ENVIRONMENT)
        check_only = getattr(args, "preload_check", False)
        self._add_routes(server.routes)
        if not path:
            if check_only:
                raise SystemExit(f"--preload-check needs a file: --preload-config FILE, or {ENVIRONMENT}")
            return

        async def at_start(app: web.Application) -> None:
            self._plan(path)
            if check_only:
                raise SystemExit(self._say_plan())
            await self._run()
            reader = getattr(server, "read_ahead", None)
            if reader is not None and self.preloader is not None:
                reader.add_source(partial(missing_models, self.preloader))

        server.app.on_startup.append(at_start)

    def _plan(self, path: str) -> None:
        """Read the config and find its loaders; what is wrong is logged."""
        try:
            config = read_config(path)
        except ConfigUnreadable as error:
            log.error("Nothing is preloaded. %s", error)
            return
        classes = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
        plan = make_plan(config, classes, importlib.import_module("folder_paths"))
        for problem in plan.problems:
            log.warning("Preload config %s: %s", path, problem)
        self.preloader = Preloader(plan, keeper_for(classes))
        self._moves_to_device, self._verbose = config.auto_gpu_load, config.verbose

    def _say_plan(self) -> int:
        """Print what would be loaded; the exit status."""
        if self.preloader is None:
            return 1
        print(plan_text(self.preloader.plan, self.preloader.keeper.capacity_bytes()))
        return 1 if self.preloader.plan.problems else 0

    async def _run(self) -> None:
        preloader = self.preloader
        if preloader is None:
            return
        if self._verbose:
            log.info("Preloading:\n%s", plan_text(preloader.plan, preloader.keeper.capacity_bytes()))
        try:
            await asyncio.get_running_loop().run_in_executor(None, preloader.run, _progress_bar(len(preloader.plan.entries)))
            if self._moves_to_device:
                await asyncio.get_running_loop().run_in_executor(None, self.move_to_device)
        except asyncio.CancelledError:
            preloader.stop()
            raise

    def move_to_device(self) -> None:
        """Load the held models onto the device, as far as there is room. Blocks; call it while no prompt runs."""
        management = importlib.import_module("comfy.model_management")
        for entry in self.preloader.plan.entries if self.preloader else ():
            if entry.state is not State.HELD:
                continue
            patchers = [patcher for patcher in map(_patcher, entry.call.run()) if patcher is not None]
            try:
                management.load_models_gpu(patchers)
            except Exception:
                log.warning("Preloaded, but not moved to the device: %s", entry.title, exc_info=True)

    def restored(self) -> dict[str, Any]:
        """Take anew what a snapshot froze, after each restore: random state, and what the device holds. Blocks."""
        self._restored += 1
        random.seed()
        importlib.import_module("torch").seed()
        importlib.import_module("numpy").random.seed()
        if self._moves_to_device:
            self.move_to_device()
        return {"restored": self._restored, **self.described()}

    def keys(self, *kinds: str) -> list[str]:
        """The keys of the config's models of *kinds*."""
        return [key for kind in kinds for key in self.preloader.keys(kind)] if self.preloader else []

    def described(self) -> dict[str, Any]:
        """Every entry, as JSON data."""
        return self.preloader.described() if self.preloader else {"models": [], "problems": []}

    def _add_routes(self, routes: web.RouteTableDef) -> None:
        async def show(request: web.Request) -> web.Response:
            return web.json_response(await asyncio.to_thread(self.described))

        async def restored(request: web.Request) -> web.Response:
            return web.json_response(await asyncio.to_thread(self.restored))

        async def change(request: web.Request, act: Callable[[Preloader, Entry], Any]) -> web.Response:
            entry = self.preloader.find(request.match_info["key"]) if self.preloader else None
            if self.preloader is None or entry is None:
                return web.json_response({"error": f"no preloaded model has the key {request.match_info['key']!r}"}, status=404)
            await asyncio.to_thread(act, self.preloader, entry)
            return web.json_response(await asyncio.to_thread(self.described))

        async def hold(request: web.Request) -> web.Response:
            return await change(request, Preloader.load)

        async def let_go(request: web.Request) -> web.Response:
            return await change(request, Preloader.let_go)

        routes.get("/keepwarm/preload")(show)
        routes.post("/keepwarm/restored")(restored)
        routes.post("/keepwarm/preload/hold/{key}")(hold)
        routes.post("/keepwarm/preload/let-go/{key}")(let_go)


def install(preloading: Preloading) -> None:
    """Let *preloading* join the server of this process, if there is one."""
    server = getattr(importlib.import_module("server").PromptServer, "instance", None)
    if server is not None:
        preloading.join(importlib.import_module("comfy.cli_args").args, server)


def _patcher(value: Any) -> Any:
    """What moves *value* between devices: itself, or its patcher."""
    return value if hasattr(value, "model_size") else getattr(value, "patcher", None)


def _progress_bar(total: int) -> Any:
    tqdm = importlib.import_module("tqdm").tqdm

    def show(entries: Iterable[Entry]) -> Iterable[Entry]:
        bar: Iterable[Entry] = tqdm(entries, total=total, desc="Preloading", unit="model", disable=None)
        return bar

    return show
