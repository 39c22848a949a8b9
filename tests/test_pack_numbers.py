"""Latents that node packs sample here against those of an upstream ComfyUI with the same packs.

    KEEPWARM_NODE_PACKS=…/packs KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/test_pack_numbers.py

``KEEPWARM_NODE_PACKS`` is a folder of packs, each in a folder of its published name; those of :mod:`pack_prompts` that are there are
run, each in servers of its own. Both servers inherit ``PYTHONPATH``, which may lead to what packs need.
"""

import os
import pathlib

import live_server
import pack_models
import pytest
import torch
from live_server import LiveServer
from pack_prompts import PACKS
from safetensors.torch import load

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
FOLDER = os.environ.get("KEEPWARM_NODE_PACKS")
CLOSE = 4e-3  # of the standard deviation of upstream's latent

pytestmark = [
    pytest.mark.skipif(
        not (CHECKOUT and PYTHON and FOLDER),
        reason="KEEPWARM_NODE_PACKS, KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no packs and no ComfyUI to test",
    ),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of small models."""
    folder = tmp_path_factory.mktemp("models")
    pack_models.write_models(folder)
    return folder


@pytest.fixture
def servers(request, models, tmp_path, monkeypatch):
    """This server and upstream's, with the pack *request.param* and the models."""
    monkeypatch.setattr(live_server, "START_TIMEOUT_S", 600)  # packs may import much
    started = []
    for name, more in (("here", {}), ("upstream", {"root": pathlib.Path(CHECKOUT), "python": PYTHON})):
        base = tmp_path / name
        pack_models.write_pack(base)
        (base / "models").symlink_to(models)
        if request.param:
            (base / "custom_nodes" / request.param).symlink_to(pathlib.Path(FOLDER) / request.param)
        started.append(LiveServer(base, cold=True, **more))
    yield started
    for server in started:
        server.stop()


def latent(server, prompt):
    """The latent that *prompt* saves on *server*, or what went wrong."""
    try:
        run = server.run(prompt, 600)
    except AssertionError as error:
        return f"refused: {str(error)[:300]}"
    errors = run.of_type("execution_error")
    if errors:
        return f"{errors[0]['node_type']}: {errors[0]['exception_message'][:300]}"
    saved = load(run.file_bytes())["latent_tensor"]
    return saved if torch.isfinite(saved).all() else "not finite"


@pytest.mark.parametrize("servers", PACKS, indirect=True, ids=lambda pack: pack or "none")
def test_latents_are_upstreams(servers, request):
    pack = request.node.callspec.params["servers"]
    if pack and not (pathlib.Path(FOLDER) / pack).is_dir():
        pytest.skip(f"{pack} is not in {FOLDER}")
    here, upstream = servers
    differing, compared = {}, 0
    for name, prompt in PACKS[pack].items():
        expected = latent(upstream, prompt)
        if isinstance(expected, str):
            print(f"{pack}: {name}: upstream: {expected}")
            continue
        compared += 1
        found = latent(here, prompt)
        difference = found if isinstance(found, str) else float((found - expected).abs().max() / expected.std())
        print(f"{pack}: {name}: {difference}")
        if isinstance(difference, str) or difference > CLOSE:
            differing[name] = difference
    assert compared and not differing, (compared, differing)
