"""Processes that use a store, for tests that kill them. One process imports torch, reads commands, and forks the others.

stop POINT FOLDER               a process goes to POINT, says "reached" and its id, and waits there to be killed
cycles FOLDER CYCLES KILLS      three processes load and evict, and are killed at random; says "done", how many of both, and how it went
"""

import os
import pathlib
import random
import select
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))

import torch
from store_parts import key_of, put, tensors_of

from comfy.ram_model_store import store as stores
from comfy.ram_model_store.folder import StoreFolder
from comfy.ram_model_store.room import StoreRoom
from comfy.ram_model_store.store import RamModelStore
from comfy.ram_model_store.writing import PartWriter

MIB = 1 << 20
PARTS, SIDES = 6, (200, 300, 450)
CAP_BYTES = 5 * MIB  # of the six parts about half fit
WORKERS = 3
PATIENCE_S = 90


def stop_here(*arguments, **more):
    """Say that the point is reached, and wait for the end."""
    print("reached", os.getpid(), flush=True)
    time.sleep(600)


def stop(point, path):
    """Go to *point* of the store in *path*."""
    store = RamModelStore(StoreFolder(path), CAP_BYTES)
    if point == "writing":
        PartWriter.filled = stop_here
    elif point == "renaming":
        os.ftruncate = stop_here
    elif point == "mapping":
        stores.map_part = stop_here
        store.find(key_of("there"))
    elif point == "evicting":
        StoreRoom._remove = stop_here
        store.relieve(1)
    put(store, key_of("new"), tensors_of(2))


def cycle(store, chance, kept):
    """One load of a part by whoever, looked at closely, and perhaps an eviction."""
    number = chance.randrange(PARTS)
    key, tensors = key_of(str(number)), tensors_of(number, SIDES[number % len(SIDES)])
    part = store.find(key)
    claim = None
    if part is None:
        claim = store.claim(key, lambda: None)
        part = store.find(key, again=True)
    views = None
    if part is not None:
        views = part.tensors(0, list(tensors), None)
    elif claim is not None:
        _, views = put(store, key, tensors)
    if claim is not None:
        claim.release()
    if views is not None:
        if not all(torch.equal(views[name], tensor) for name, tensor in tensors.items()):
            raise AssertionError(f"part {number} is torn")
        views["a"].add_(1)  # stays this process's own
        kept[number] = views
    if len(kept) > 2 or chance.random() < 0.3:
        kept.pop(next(iter(kept)), None)
    if chance.random() < 0.1:
        store.relieve(chance.randrange(2 * MIB))
    if chance.random() < 0.02:
        store.clear("tested")


def work(path, seed, pipe):
    """Cycles until killed, a byte into *pipe* for each."""
    store, chance, kept = RamModelStore(StoreFolder(path), CAP_BYTES), random.Random(seed), {}
    while True:
        cycle(store, chance, kept)
        os.write(pipe, b".")


def start(path, seed, pipe):
    """The id of a new process that works."""
    child = os.fork()
    if child:
        return child
    try:
        work(path, seed, pipe)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def cycles(path, wanted, kills):
    """Let three processes make *wanted* cycles, and kill one of them *kills* times meanwhile. Stops when one fails by itself."""
    chance, done, killed = random.Random(7), 0, 0
    reading, writing = os.pipe()
    workers = {start(path, number, writing) for number in range(WORKERS)}
    failed = False
    while done < wanted and not failed:
        if not select.select([reading], [], [], PATIENCE_S)[0]:
            print("nothing moves", file=sys.stderr)
            failed = True
            break
        done += len(os.read(reading, 4096))
        ended, _ = os.waitpid(-1, os.WNOHANG)
        failed = ended != 0
        if killed < kills and done >= (killed + 1) * wanted // (kills + 1):
            time.sleep(chance.random() * 0.02)
            victim = chance.choice(sorted(workers))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            killed += 1
            workers = workers - {victim} | {start(path, 100 + killed, writing)}
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    print("done", done, killed, "failed" if failed else "well", flush=True)


def serve():
    """Follow commands until there are no more."""
    print("ready", flush=True)
    for line in sys.stdin:
        command, *rest = line.split()
        child = os.fork()
        if not child:
            if command == "stop":
                stop(*rest)
            else:
                cycles(rest[0], int(rest[1]), int(rest[2]))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve()
