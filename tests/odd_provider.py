"""A node pack with one cache provider, written with the two abstract methods only, that misbehaves as ODD_PROVIDER says.

Copied into a server's custom_nodes by the tests; a note of each stored key goes to the file ODD_PROVIDER_NOTES. Modes: ``raises``,
``exits``, ``cancels``, ``hangs``, ``blocks``, ``garbage``, all of them as soon as the file ODD_PROVIDER_SWITCH is there, ``slow-store``,
``off``. Works in any ComfyUI that has cache providers.
"""

import asyncio
import os
import time

from comfy_api.latest import Caching, ComfyAPISync

HANG_S = 60.0
GARBAGE = [
    "a text",
    7,
    Caching.CacheValue(outputs="text"),
    Caching.CacheValue(outputs=[]),
    Caching.CacheValue(outputs=[[object()]]),
    Caching.CacheValue(outputs=[[{"samples": "no tensor"}]]),
    Caching.CacheValue(outputs=[[1], [2], [3]]),
]


class OddProvider(Caching.CacheProvider):
    """Misbehaves in lookups and stores alike."""

    def __init__(self, mode):
        self.mode = mode
        self.count = 0

    async def on_lookup(self, context):
        """Whatever the mode says."""
        self.count += 1
        await self._misbehave()
        is_on = os.path.exists(os.environ["ODD_PROVIDER_SWITCH"])
        return GARBAGE[self.count % len(GARBAGE)] if is_on and self.mode == "garbage" else None

    async def on_store(self, context, value):
        """Whatever the mode says."""
        if self.mode == "slow-store":
            await asyncio.sleep(0.05)
            with open(os.environ["ODD_PROVIDER_NOTES"], "a", encoding="utf-8") as notes:
                notes.write(context.cache_key_hash + "\n")
        await self._misbehave()

    async def _misbehave(self):
        if not os.path.exists(os.environ["ODD_PROVIDER_SWITCH"]):
            return
        if self.mode == "raises":
            raise RuntimeError("odd")
        if self.mode == "exits":
            raise SystemExit(3)
        if self.mode == "cancels":
            raise asyncio.CancelledError
        if self.mode == "hangs":
            await asyncio.sleep(HANG_S)
        if self.mode == "blocks":
            time.sleep(HANG_S)


class OddNumber:
    """Gives its number as text."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "go", "test"

    @classmethod
    def INPUT_TYPES(cls):
        """One number."""
        return {"required": {"number": ("INT", {"max": 1 << 30})}}

    def go(self, number):
        """The number as text."""
        return (str(number),)


class OddList:
    """An output node that takes any number of texts."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "go", "test", True

    @classmethod
    def INPUT_TYPES(cls):
        """Any texts."""
        return {"required": {}, "optional": {f"text{number}": ("STRING", {"forceInput": True}) for number in range(200)}}

    def go(self, **texts):
        """Show them."""
        return {"ui": {"texts": sorted(texts.values(), key=int)}}


NODE_CLASS_MAPPINGS = {"OddNumber": OddNumber, "OddList": OddList}

if os.environ.get("ODD_PROVIDER", "off") != "off":
    ComfyAPISync().caching.register_provider(OddProvider(os.environ["ODD_PROVIDER"]))
