"""A node pack that can hold the reads of model files, as a disk or a network volume that stalls does.

Copied into a server's custom_nodes by the tests. While the file HELD_READS is there, a read of weights notes that it has begun (a line
``begin OFFSET``) in the file HELD_READS.notes, and waits. Each read notes what it gave as ``read OFFSET BYTES``.
"""

import asyncio
import os
import time

import comfy.sd
import folder_paths

SWITCH = os.environ["HELD_READS"]
POLL_S = 0.01
_preadv = os.preadv


def note(line):
    """Append *line*; short appends do not mix."""
    with open(SWITCH + ".notes", "a", encoding="utf-8") as notes:
        notes.write(line + "\n")


def preadv(file, buffers, offset, *flags):
    """``os.preadv``, held. Calls with flags look at the page cache only and pass."""
    if flags:
        return _preadv(file, buffers, offset, *flags)
    if os.path.exists(SWITCH):
        note(f"begin {offset}")
    while os.path.exists(SWITCH):
        time.sleep(POLL_S)
    count = _preadv(file, buffers, offset)
    note(f"read {offset} {count}")
    return count


class LoadAside:
    """Loads a checkpoint on a thread of its own, so that several of these nodes load at once."""

    CATEGORY = "tests"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802  (ComfyUI's name)
        """A name and a number that makes nodes differ."""
        return {"required": {"ckpt_name": ("STRING", {}), "number": ("INT", {})}}

    async def load(self, ckpt_name, number):
        """Nothing; the models go again."""
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        note(f"asked {number}")
        embeddings = folder_paths.get_folder_paths("embeddings")
        await asyncio.to_thread(comfy.sd.load_checkpoint_guess_config, path, embedding_directory=embeddings)
        return ()


os.preadv = preadv
NODE_CLASS_MAPPINGS = {"LoadAside": LoadAside}
