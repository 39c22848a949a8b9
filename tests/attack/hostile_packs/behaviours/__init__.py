"""Nodes that do what no node should: ``HostileNode`` raises *what* at *where*, ``HostileThreads`` ends the server's threads."""

import asyncio
import ctypes
import sys
import threading


class Panic(BaseException):
    """As extension modules raise it."""


class Mute(BaseException):
    """Tells nothing about itself."""

    def _refuse(self):
        raise KeyboardInterrupt

    __str__ = __repr__ = _refuse
    __class__ = __traceback__ = property(_refuse)


ERRORS = {
    "KeyboardInterrupt": lambda: KeyboardInterrupt("by code"),
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [SystemExit(), KeyboardInterrupt()]),
    "Panic": lambda: Panic("panicked"),
    "Mute": Mute,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
}


def throw(what):
    raise ERRORS[what]()


class Opaque:
    """A value whose every method raises *what*."""

    def __init__(self, what):
        self._what = what

    def _refuse(self, *arguments):
        throw(self._what)

    __str__ = __repr__ = __len__ = __iter__ = as_dict = items = __eq__ = __hash__ = _refuse


class Base:
    """What all of them take."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("*",), "go", "hostile"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"what": ("STRING", {}), "salt": ("INT", {"max": 1 << 40})}}

    def go(self, what, salt):
        return (salt,)


class Sync(Base):
    def go(self, what, salt):
        throw(what)


class Async(Base):
    async def go(self, what, salt):
        await asyncio.sleep(0.001)
        throw(what)


class AsyncAtOnce(Base):
    async def go(self, what, salt):
        throw(what)


class Lazy(Base):
    def check_lazy_status(self, what, salt):
        throw(what)


class Made(Base):
    def __init__(self):
        throw(sys.modules[__name__].made)


class Ui(Base):
    def go(self, what, salt):
        return {"ui": Opaque(what), "result": (salt,)}


class Changed(Base):
    @classmethod
    def IS_CHANGED(cls, what, salt):
        throw(what)


class ChangedAsync(Base):
    @classmethod
    async def IS_CHANGED(cls, what, salt):
        throw(what)


class Handler(Base):
    def go(self, what, salt):
        from comfy_execution.progress_board.state import ProgressHandler, add_progress_handler

        handler = ProgressHandler("hostile")
        handler.finish_handler = lambda *arguments: throw(what)
        add_progress_handler(handler)
        return (salt,)


class Reset(Base):
    def go(self, what, salt):
        from comfy_execution.progress_board.state import ProgressHandler, add_progress_handler

        handler = ProgressHandler("hostile")
        handler.reset = lambda: throw(what)
        add_progress_handler(handler)
        return (salt,)


class OwnTasks(Base):
    async def go(self, what, salt):
        loop = asyncio.get_running_loop()
        loop.call_soon(throw, what)
        task = loop.create_task(Async().go(what, salt))
        loop.stop()
        await asyncio.sleep(0.01)
        return (task.done(),)


class Shown(Base):
    def go(self, what, salt):
        return {"ui": {"text": [Opaque(what), 10**6000, float("nan")]}, "result": (salt,)}


class Threads(Base):
    def go(self, what, salt):
        for thread in threading.enumerate():
            if thread.name in ("prompt-worker", "execution-loop", "prompt-worker-watch"):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        return (salt,)


made = "KeyboardInterrupt"
FAILING = (Sync, Async, AsyncAtOnce, Lazy, Made, Ui, Handler)
PASSING = (Changed, ChangedAsync, Reset, OwnTasks, Shown)
NODE_CLASS_MAPPINGS = {f"Hostile{kind.__name__}": kind for kind in (*FAILING, *PASSING, Threads)}
