"""The pack in an unpatched ComfyUI, or one with the series provider-fixes: given a checkout of it, two of its servers share results through
each kind of place.

    KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/test_pack_on_upstream.py

Nothing in the checkout is changed: the pack lies in the custom_nodes of each server's base directory.
"""

import os
import pathlib
import shutil

import pytest
from live_server import ROOT
from result_places import light_workflow, pixels

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")

pytestmark = [
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
    pytest.mark.timeout(400),
]


def noise_workflow():
    """Pictures and a latent, as a model's nodes give them."""
    return {
        **light_workflow(7),
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 8}},
        "repeated": {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["latent", 0], "amount": 4}},
        "kept": {"class_type": "SaveLatent", "inputs": {"samples": ["repeated", 0], "filename_prefix": "kept"}},
    }


def picture(run):
    """The picture data of the PNG that was saved, which must be there."""
    (index,) = [index for index, file in enumerate(run.files) if file["filename"].endswith(".png")]
    data = pixels(run.file_bytes(index))
    assert data
    return data


@pytest.fixture
def start_upstream(start_server, url):
    """Starts upstream servers that have the pack and share through *url*."""

    def start(name, hash_seed, base):
        packs = base / name / "custom_nodes"
        packs.mkdir(parents=True)
        shutil.copytree(ROOT / "custom_nodes" / "keepwarm", packs / "keepwarm", ignore=shutil.ignore_patterns("__pycache__"))
        environment = {"KEEPWARM_CACHE_PROVIDERS": url, "PYTHONHASHSEED": hash_seed, "KEEPWARM_METRICS": "0"}
        return start_server(name=name, environment=environment, root=pathlib.Path(CHECKOUT), python=PYTHON)

    return start


def test_two_upstream_servers_share_results(start_upstream, tmp_path, url):
    first = start_upstream("first", "1", tmp_path)
    made = first.run(noise_workflow(), 120)
    assert {"image", "inverted", "scaled", "save", "latent", "repeated", "kept"} <= set(made.executed)
    (stored,) = first.get("/keepwarm/caches")["providers"]
    assert stored["url"] == url and stored["hits"] == stored["errors"] == 0
    drawn = picture(made)
    first.stop()
    second = start_upstream("second", "2", tmp_path)
    served = second.run(noise_workflow(), 120)
    assert sorted(served.executed) == ["kept", "save"]
    # With the series provider-fixes, what lies above a result that is found is not fetched.
    fetches_least = (pathlib.Path(CHECKOUT) / "comfy_execution" / "provider_prompts.py").exists()
    fetched = {"scaled", "repeated"} if fetches_least else {"image", "inverted", "scaled", "latent", "repeated"}
    assert fetched == set(served.of_type("execution_cached")[0]["nodes"])
    assert picture(served) == drawn
    (numbers,) = second.get("/keepwarm/caches")["providers"]
    assert (numbers["hits"], numbers["misses"], numbers["errors"], numbers["rejected"]) == (len(fetched), 0, 0, 0)
    other = second.run(light_workflow(8), 120)
    assert {"image", "inverted", "scaled", "save"} == set(other.executed)
