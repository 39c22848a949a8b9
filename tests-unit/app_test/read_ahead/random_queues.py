"""Random queues of prompts over small model files, and a server's inside that works them off with or without reading ahead."""

import dataclasses
import hashlib
import os
import random
import threading
import time
from types import SimpleNamespace

import safetensors.torch
import torch
from executor_harness import FakeServer, make_node, node
from residency_models import HOST, patcher_of

import execution
import folder_paths
from app.read_ahead.reader import ReadAhead
from app.running.worker import PromptWorker
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts

FILES = tuple(f"m{number}.safetensors" for number in range(5))
DAMAGED, MISSING = "damaged.safetensors", "missing.safetensors"
WIDTH = 64
MODEL_BYTES = WIDTH * WIDTH * 4
LOOK_AGAIN_S = 0.05


def write_model(path, seed):
    """A file with one matrix that follows from *seed*, in the place of what was there."""
    tensor = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed))
    safetensors.torch.save_file({"weight": tensor}, f"{path}.new", metadata={"seed": str(seed)})
    os.replace(f"{path}.new", path)


class Matrix(torch.nn.Module):
    """One parameter."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)


class MatrixPart(Part):
    """The model of such a file; *noted* is called with the file's seed once it has been read."""

    def __init__(self, files, variant, noted):
        super().__init__({"variant": variant})
        self._files, self._noted = files, noted

    def load(self):
        source = self._files.source()
        time.sleep(random.random() * 0.002)
        patcher = patcher_of(Matrix(source.take(["weight"], None)["weight"]), HOST)
        self._noted(source.metadata["seed"])
        return patcher

    def estimate_bytes(self):
        return kept_bytes(self._files.source(), "", None)


class TellingServer(FakeServer):
    """Sets *told* when the queue changes."""

    def __init__(self, told):
        super().__init__()
        self.queue_updated = told.set


@dataclasses.dataclass
class Record:
    """What one run of a queue did: per prompt (status, messages, outputs), the nodes in order, files read, the cache's figures."""

    prompts: dict
    order: list
    reads: list
    counters: dict
    problems: list


class Inside:
    """Queue, worker, executor and node classes over *folder*; everything but the models is the server's own."""

    def __init__(self, folder, cache, install, ahead, cache_type):
        self.folder, self.order, self.reads = folder, [], []
        self.told = threading.Event()  # the worker has done something
        self.server = TellingServer(self.told)
        self.server.prompt_queue = self.queue = execution.PromptQueue(self.server)
        classes = self._classes()
        install(classes)
        self.cache = cache
        self.ahead = ReadAhead(cache, lambda: self.queue, lambda: classes) if ahead else None
        self.executor = execution.PromptExecutor(self.server, cache_type, {"lru": 3}, model_cache=cache, read_ahead=self.ahead)
        upkeep = SimpleNamespace(unload_models=lambda: None, trim=lambda: None, release_spare=self.told.set)
        self.worker = PromptWorker(self.queue, self.server, self.executor, execution.PromptQueue.ExecutionStatus, upkeep)

    def _classes(self):
        inside = self

        def load(self, name, variant):
            if inside.cache.ahead.current() is None:  # the node itself
                inside.order.append(("load", name, variant))
            return (inside.load(name, variant),)

        def use(self, models, number, work_ms):
            inside.order.append(("use", number))
            time.sleep(work_ms / 1000)
            weights = [models.model.weight]
            digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights)).hexdigest()[:12]
            return {"ui": {"digest": [digest, number]}}

        def act(self, what, number, models=None):
            inside.order.append((what, number))
            inside.act(what, number)
            return {"ui": {"did": [what]}}

        loader = make_node(load, {"name": ("STRING", {}), "variant": ("STRING", {})}, ("MODEL",), READS_AHEAD={"name": "checkpoints"})
        loader.go.__module__ = loader.__module__
        return {
            "Load": loader,
            "Use": make_node(use, {"models": ("MODEL",), "number": ("INT", {}), "work_ms": ("INT", {})}, (), True),
            "Act": make_node(act, {"what": ("STRING", {}), "number": ("INT", {})}, (), True, sections={"optional": {"models": ("MODEL",)}}),
        }

    def load(self, name, variant):
        """What a loader does."""
        path = folder_paths.get_full_path_or_raise("checkpoints", name)
        with ModelFiles(path) as files:
            return load_parts(files, {"model": MatrixPart(files, variant, lambda seed: self.reads.append((name, seed, variant)))})["model"]

    def act(self, what, number):
        """What happens in the middle of a prompt."""
        if what == "fail":
            raise RuntimeError(f"node {number} fails")
        if what == "interrupt":
            self.queue.interrupt_all()
            execution.before_call()
        elif what == "withdraw":
            self.queue.delete_queue_item(lambda row: row[1] == f"p{number}")
        elif what == "free":
            self.queue.set_flag("free_memory", True)
        elif what == "replace":
            write_model(self.folder / FILES[number % len(FILES)], 1000 + number)
            time.sleep(0.03)  # another change would show; see prompt_files/file_state.py

    def run(self, prompts):
        """Queue all, work them off, and tell what was done."""
        for number, prompt in enumerate(prompts):
            outputs = [node_id for node_id, one in prompt.items() if one["class_type"] != "Load"]
            self.queue.put((number, f"p{number}", prompt, {"client_id": "owner"}, outputs, {}))
        self.worker.start()
        try:
            self._wait_until(lambda: not self.queue.get_tasks_remaining() and not self.queue.get_flags(reset=False))
            if self.ahead is not None:
                self.ahead.pause("the test ends")
                self._wait_until(lambda: not self.cache.ahead.waiting())  # nobody will ask for it, so it is let go
        finally:
            self.worker.stop(interrupt=self.executor.close)
        return Record(
            {prompt_id: self._told(entry) for prompt_id, entry in self.queue.get_history().items()},
            self.order,
            self.reads,
            dataclasses.asdict(self.cache.stats().counters),
            self.cache.check() + [f"thread {one.name}" for one in threading.enumerate() if one.name == "read-ahead-load"],
        )

    def _wait_until(self, holds):
        """Until *holds*. However slow the machine is: only the test's own time limit ends this, and shows where all threads stand."""
        while not holds():
            self.told.wait(LOOK_AGAIN_S)
            self.told.clear()

    @staticmethod
    def _told(entry):
        status = entry["status"]
        told = [
            (event, {name: data.get(name) for name in ("node_id", "exception_message", "exception_type", "executed", "nodes")})
            for event, data in status["messages"]
        ]
        return status["status_str"], told, entry["outputs"]


def random_queue(rng):
    """Prompts with loaders of a few files, nodes that use them, and things that go wrong or change files meanwhile."""
    prompts = []
    count = rng.randint(3, 7)
    files = rng.sample(FILES, rng.randint(2, len(FILES)))
    troubled = rng.random() < 0.7
    for number in range(count):
        prompt = {}
        for index in range(rng.randint(1, 3)):
            name = rng.choice(files)
            if troubled and rng.random() < 0.06:
                name = rng.choice([DAMAGED, MISSING])
            prompt[f"load{index}"] = node("Load", name=name, variant=rng.choice(["x", "x", "y"]))
            prompt[f"use{index}"] = node("Use", models=(f"load{index}", 0), number=10 * number + index, work_ms=rng.choice([0, 0, 2, 6]))
        if troubled and rng.random() < 0.5:
            what = rng.choice(["fail", "interrupt", "withdraw", "free", "replace", "replace"])
            aim = rng.randint(number + 1, count) if what == "withdraw" else 10 * number
            links = {"models": ("load0", 0)} if rng.random() < 0.5 else {}
            prompt["act"] = node("Act", what=what, number=aim, **links)
        prompts.append(prompt)
    return prompts


def is_disturbed(prompts):
    """Whether something can keep a model that is foreseen from being asked for."""
    nodes = [one for prompt in prompts for one in prompt.values()]
    return any(one["class_type"] == "Act" or one["inputs"].get("name") in (DAMAGED, MISSING) for one in nodes)
