"""The RAM model cache in a real memory control group that is smaller than what it is asked to keep: it gives way, nobody is killed."""

import json
import pathlib
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from ram_cache_fakes import Key, patcher
from test_host_memory_group import ROOT, group  # noqa: F401 - a fixture

from comfy.ram_model_cache.cache import CacheSettings, OwnerHooks, RamModelCache
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView

MIB = 1 << 20
LIMIT_BYTES, HEADROOM_BYTES, MODEL_BYTES, MODELS = 900 * MIB, 100 * MIB, 48 * MIB, 24
CODE = """
import json, logging, os, pathlib, sys
folder, path, headroom, model_bytes, models = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
pathlib.Path(folder, "cgroup.procs").write_text(str(os.getpid()))
import torch
from comfy.ram_model_cache.host_memory import HostMemory
from comfy.ram_model_cache.cache import CacheSettings, RamModelCache
from comfy.residency.model_cache import CacheOwner
from comfy.weight_files.reader import WeightReader

lines = []
handler = logging.Handler()
handler.emit = lambda record: lines.append(record.getMessage())
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel(logging.INFO)

class Patcher:
    parent = None
    def __init__(self, model): self.model, self.backup = model, {}
    def is_dynamic(self): return False
    def clone(self):
        twin = Patcher(self.model)
        twin.parent = self
        return twin

def load(missing):
    model = torch.nn.Module()
    with WeightReader(path, drop_pages=True) as reader:
        for name, tensor in reader.read(reader.header.entries).items():
            model.register_buffer(name, tensor)
    return {missing[0]: Patcher(model)}

memory = HostMemory()
cache = RamModelCache(CacheSettings(1 << 40, headroom_bytes=headroom), CacheOwner(memory=memory).hooks(), start_thread=lambda run: None)
use = lambda name: cache.fetch({name: model_bytes}, load)[name].model.weight0.sum().item()
stages, available = {}, []

def note(stage):
    stats = cache.stats()
    stages[stage] = {"kept": stats.kept, "bytes": stats.kept_bytes, "pressure": stats.under_pressure,
                     "evictions": stats.counters.evictions, "available": memory.available_bytes(), "problems": cache.check()}

for number in range(models):
    use(f"model {number}")
    available.append(memory.available_bytes())
note("filled")
others = []
while memory.available_bytes() > headroom - 30 * (1 << 20):
    others.append(bytearray(os.urandom(1 << 20) * 4))
cache.tick()
note("others came")
while memory.available_bytes() > headroom * 1.2:
    others.append(bytearray(os.urandom(1 << 20) * 4))
cache.tick()
use("one more")
cache.tick()
note("between the marks")
others.clear()
cache.tick()
note("others went")
use("and one more")
use("yet one more")
note("grown")
print(json.dumps({"stages": stages, "lowest": min(available), "lines": lines}))
"""


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({f"weight{number}": torch.ones(3 << 20) for number in range(4)}, path)
    assert path.stat().st_size >= MODEL_BYTES
    return path


@pytest.mark.slow
def test_the_cache_gives_way_to_the_groups_limit_and_grows_again(group, weights):  # noqa: F811
    folder, limit = group
    try:
        (folder / limit).write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no memory limit can be set here: {error}")
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(folder), str(weights), *map(str, (HEADROOM_BYTES, MODEL_BYTES, MODELS))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    stages, lines = said["stages"], said["lines"]
    assert [stage["problems"] for stage in stages.values()] == [[]] * len(stages)

    filled = stages["filled"]
    assert 2 <= filled["kept"] < MODELS and filled["bytes"] < LIMIT_BYTES < MODELS * MODEL_BYTES
    assert filled["evictions"]["memory pressure"] >= MODELS - filled["kept"] and said["lowest"] > HEADROOM_BYTES // 2

    came = stages["others came"]
    assert came["pressure"] and came["kept"] < filled["kept"] and came["available"] >= HEADROOM_BYTES * 1.4
    between = stages["between the marks"]
    assert between["pressure"] and between["kept"] <= came["kept"], "it does not grow before half as much again is free"
    assert not stages["others went"]["pressure"] and stages["grown"]["kept"] == stages["others went"]["kept"] + 2

    warnings = [line for line in lines if "of RAM left" in line]
    assert warnings and "the cache shrinks and does not grow until" in warnings[0]
    assert any("evicted" in line and "memory" in line for line in lines), lines
    assert _killed(folder) == 0


def _killed(folder: pathlib.Path) -> int:
    """How many processes of the group the kernel killed for lack of memory."""
    for name in ("memory.oom_control", "memory.events"):
        if (folder / name).exists():
            pairs = dict(line.split() for line in (folder / name).read_text().splitlines())
            return int(pairs.get("oom_kill", 0))
    return 0


def test_a_version_2_group_is_heeded_by_its_files(tmp_path, caplog):
    """The same without a kernel's help: the files of a version 2 group, written by the test."""
    folder = tmp_path / "sys/fs/cgroup/job"
    folder.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (folder / "memory.max").write_text("1000\n")
    (folder / "memory.stat").write_text("inactive_file 50\nactive_file 0\n")

    def use_bytes(count):
        (folder / "memory.current").write_text(f"{count + 50}\n")

    use_bytes(0)
    memory = HostMemory(tmp_path, lambda: MemoryView(1 << 40, 1 << 40))
    cache = RamModelCache(
        CacheSettings(10_000, headroom_bytes=200), OwnerHooks(memory.available_bytes, trim=lambda: None), start_thread=lambda run: None
    )
    for number in range(6):
        use_bytes(number * 100)
        cache.fetch({Key(f"model {number}"): 100}, lambda missing: {key: patcher(100) for key in missing})
    assert cache.stats().kept == 6 and not cache.stats().under_pressure
    use_bytes(900)
    cache.tick()
    assert cache.stats().under_pressure and cache.stats().kept == 4, "100 bytes are left of 200, 300 are wanted"
    use_bytes(750)
    cache.tick()
    assert cache.stats().under_pressure and cache.stats().kept == 4, "250 bytes are left: nothing more goes, nothing comes"
    use_bytes(600)
    cache.tick()
    assert not cache.stats().under_pressure and cache.check() == []
    (folder / "memory.max").write_text("max\n")
    (folder / "memory.high").write_text("650\n")
    cache.tick()
    assert cache.stats().under_pressure and cache.stats().counters.evictions == {"memory pressure": 5}
    assert "are to stay free" in caplog.text
    cache.close()
