"""Providers of every temper, for the tests of what guards them."""

import asyncio
import threading

from comfy_execution.cache_provider import CacheProvider, CacheValue


class Memory(CacheProvider):
    """Keeps values in a dictionary and notes what was asked of it."""

    def __init__(self, delay_s=0.0):
        self.delay_s = delay_s
        self.values = {}
        self.lookups = []
        self.stores = []
        self.events = []
        self.in_flight = 0
        self.rounds = 0

    async def on_lookup(self, context):
        self.lookups.append(context.cache_key_hash)
        self.rounds += self.in_flight == 0
        self.in_flight += 1
        await asyncio.sleep(self.delay_s)
        self.in_flight -= 1
        return self.values.get(context.cache_key_hash)

    async def on_store(self, context, value):
        await asyncio.sleep(self.delay_s)
        self.stores.append(context.class_type)
        self.values[context.cache_key_hash] = value

    def on_prompt_start(self, prompt_id):
        self.events.append(("start", prompt_id))

    def on_prompt_end(self, prompt_id):
        self.events.append(("end", prompt_id))


class Raising(Memory):
    """Raises *error* from everything."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    async def on_lookup(self, context):
        self.lookups.append(context.cache_key_hash)
        raise self.error

    async def on_store(self, context, value):
        raise self.error

    def should_cache(self, context, value=None):
        if len(self.lookups) % 2:
            raise self.error
        return True

    def on_prompt_start(self, prompt_id):
        super().on_prompt_start(prompt_id)
        raise self.error

    def on_prompt_end(self, prompt_id):
        super().on_prompt_end(prompt_id)
        raise self.error


class Hanging(Memory):
    """Never answers, politely: awaiting."""

    async def on_lookup(self, context):
        self.lookups.append(context.cache_key_hash)
        await asyncio.Event().wait()

    async def on_store(self, context, value):
        await asyncio.Event().wait()


class Blocking(Memory):
    """Never answers and stops its loop, until ``released``."""

    def __init__(self):
        super().__init__()
        self.released = threading.Event()

    async def on_lookup(self, context):
        self.lookups.append(context.cache_key_hash)
        self.released.wait(60)

    async def on_store(self, context, value):
        self.released.wait(60)


class Garbage(Memory):
    """Answers with what is no result of the node."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    async def on_lookup(self, context):
        self.lookups.append(context.cache_key_hash)
        return self.make()


class Unmeasurable:
    """Looks like a tensor."""

    element_size = len

    def numel(self):
        raise RuntimeError("no numbers in it")


def endless():
    """A dictionary in itself."""
    one = {}
    one["again"] = one
    return one


GARBAGE = {
    "text": lambda: "value",
    "outputs of the wrong type": lambda: CacheValue(7),
    "no outputs": lambda: CacheValue([]),
    "too many outputs": lambda: CacheValue([[1], [2], [3]]),
    "an empty output": lambda: CacheValue([[]]),
    "output that is no list": lambda: CacheValue([1]),
    "ui of another shape": lambda: CacheValue([[1]], ui={"images": []}),
    "ui that is text": lambda: CacheValue([[1]], ui="ui"),
    "ui that no page can read": lambda: CacheValue([[1]], ui={"output": {"text": [object()]}, "meta": {}}),
    "ui that contains itself": lambda: CacheValue([[1]], ui={"output": endless(), "meta": {}}),
    "a value that cannot be measured": lambda: CacheValue([[Unmeasurable()]]),
    "the class itself": lambda: CacheValue,
}
