"""A store of weights whose cap is above what the process's control group allows: it shrinks before the kernel kills."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from memory_limits import MemoryGroup

from benchmarks.make_checkpoint import PARTS, checkpoint_layout, family, write_checkpoint
from comfy.ram_model_store.folder import MEMORY_FILE_SYSTEMS, SHARED_MEMORY, file_system_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT_BYTES = 4 << 30
CHECKPOINTS = 6  # of 1 GB each as they are kept

LOADS = """
import os, sys
store, *paths = sys.argv[1:]
sys.argv = [sys.argv[0], "--cpu", "--ram-model-cache-mb", "20000", "--ram-model-store", store]
sys.path.insert(0, os.getcwd())
import comfy.options
comfy.options.enable_args_parsing()
import comfy.cli_args
comfy.cli_args.parse()
import comfy.model_management as management
import comfy.sd, torch
models = management.process_models()
models.open_store()
sums = set()
for path in paths * 2:
    parts = comfy.sd.load_checkpoint_guess_config(path)[:3]
    modules = [getattr(part, "patcher", part).model for part in parts]
    sums.add(tuple(float(weight.double().sum()) for module in modules for weight in module.parameters())[::50])
    del parts, modules
    management.ram_cache().safe_point()
assert len(sums) == 1, "the checkpoints are the same file"
print(models.store().counters(), management.ram_cache().stats().counters)
assert models.store().counters()["stored"] > 0
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_store_whose_cap_is_above_the_limit_of_its_group_gets_nobody_killed(tmp_path):
    if not os.path.isdir(SHARED_MEMORY) or file_system_of(os.stat(SHARED_MEMORY).st_dev) not in MEMORY_FILE_SYSTEMS:
        pytest.skip("there is no memory file system")
    try:
        group = MemoryGroup(LIMIT_BYTES)
    except OSError:
        pytest.skip("no control group can be made here")
    store = tempfile.mkdtemp(prefix="keepwarm-test-", dir=SHARED_MEMORY)
    try:
        sizes = family("sd15", 2)
        paths = [tmp_path / f"{number}.safetensors" for number in range(CHECKPOINTS)]
        write_checkpoint(str(paths[0]), checkpoint_layout(sizes, PARTS), 0, "fp16", metadata=sizes.metadata())
        for path in paths[1:]:
            os.link(paths[0], path)
        python = group.python(sys.executable, tmp_path / "python")
        command = [python, "-c", LOADS, store, *map(str, paths)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr[-3000:]
        assert group.kills == 0 and group.peak_bytes <= LIMIT_BYTES
    finally:
        shutil.rmtree(store)
        group.remove()
