"""The two checkpoints in the repository: their size and names, and that the default workflow's nodes draw what is asked for."""

import json
import pathlib

import pytest
import torch
from safetensors import safe_open

import nodes
from starter.data import split_digits
from starter.drawing import BarePainter, NodePainter
from starter.export import read_checkpoint
from starter.reading import DigitReader
from starter.sizes import checkpoint_shapes
from starter.styles import STYLES
from starter.train import CHECKPOINTS

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "starter.json"
LARGEST_BYTES = 16_000_000


@pytest.fixture(scope="module", params=sorted(STYLES))
def style(request):
    """Each style in turn."""
    return request.param


def checkpoint(style):
    """The path of the style's checkpoint."""
    return CHECKPOINTS / f"starter-{style}.safetensors"


def test_file_is_small_and_in_the_published_layout(style):
    assert checkpoint(style).stat().st_size <= LARGEST_BYTES
    with safe_open(str(checkpoint(style)), framework="pt") as file:
        names = list(file.keys())
        assert {name: tuple(file.get_slice(name).get_shape()) for name in names} == checkpoint_shapes()
        assert all(file.get_tensor(name).isfinite().all() for name in names)


def test_nodes_draw_the_digit_asked_for(style):
    reader = DigitReader(style, split_digits()[1])
    painter = NodePainter(checkpoint(style), sampler="dpmpp_2m")
    for prompt, digit in (("a handwritten seven", 7), ("the digit 3", 3)):
        pictures = painter.draw(prompt, 4, seed=11)
        assert pictures.shape == (4, 3, 64, 64)
        assert reader.accuracy(pictures, [digit] * 4) >= 0.75


def test_bare_networks_draw_the_digit_asked_for(style):
    painter = BarePainter(read_checkpoint(checkpoint(style)))
    pictures = painter.draw("zero", 2, seed=5)
    assert DigitReader(style, split_digits()[1]).read(pictures) == [0, 0]
    assert torch.equal(pictures, painter.draw("zero", 2, seed=5))


def test_example_names_known_nodes_and_an_existing_checkpoint():
    prompt = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert all(node["class_type"] in nodes.NODE_CLASS_MAPPINGS for node in prompt.values())
    loader = next(node for node in prompt.values() if node["class_type"] == "CheckpointLoaderSimple")
    assert (CHECKPOINTS / loader["inputs"]["ckpt_name"]).is_file()
