"""A pack whose classes do in checks what no class should: end the process, block, raise everything. Copied into a server's custom_nodes."""

import asyncio
import sys
import time

BLOCKED_S = 1.5


def leave(*_, **__):
    sys.exit(3)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def group(*_, **__):
    raise BaseExceptionGroup("all", [SystemExit(1)])


def block(*_, **__):
    time.sleep(BLOCKED_S)
    return True


async def leave_later(*_, **__):
    await asyncio.sleep(0)
    sys.exit(3)


async def block_later(*_, **__):
    await asyncio.sleep(0)
    time.sleep(BLOCKED_S)
    return True


def build(name, **methods):
    """An output node whose class methods are *methods*."""
    attributes = {
        "RETURN_TYPES": (),
        "FUNCTION": "run",
        "OUTPUT_NODE": True,
        "INPUT_TYPES": classmethod(lambda cls: {"required": {"x": ("INT", {})}}),
        "run": lambda self, x: (),
    }
    return type(name, (), attributes | {key: classmethod(method) for key, method in methods.items()})


VALIDATORS = {f"Validate_{one.__name__}": one for one in (leave, interrupt, group, block, leave_later, block_later)}
DECLARATIONS = {f"Declare_{one.__name__}": one for one in (leave, interrupt, group)}
NODE_CLASS_MAPPINGS = {name: build(name, VALIDATE_INPUTS=lambda cls, x, one=one: one()) for name, one in VALIDATORS.items()}
NODE_CLASS_MAPPINGS |= {name: build(name, INPUT_TYPES=one) for name, one in DECLARATIONS.items()}
