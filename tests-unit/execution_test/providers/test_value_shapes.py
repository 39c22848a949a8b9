"""What values of socket types must be, as this server and as the pack in other servers check it."""

import pytest

from comfy_execution.providers.value_shapes import check_of
from custom_nodes.keepwarm.result_shapes import fits

torch = pytest.importorskip("torch")
ones = torch.ones

CASES = [
    ("IMAGE", lambda: ones(1, 8, 8, 3), True),
    ("IMAGE", lambda: ones(0, 8, 8, 3), True),
    ("IMAGE", lambda: ones(2, 8, 8, 4), True),
    ("IMAGE", lambda: ones(2, 8, 8, 1, dtype=torch.float16), True),
    ("IMAGE", lambda: ones(3), False),
    ("IMAGE", lambda: ones(8, 8, 3), False),
    ("IMAGE", lambda: ones(1, 3, 8, 8), False),
    ("IMAGE", lambda: ones(1, 8, 8, 3, dtype=torch.uint8), False),
    ("IMAGE", lambda: None, False),
    ("IMAGE", lambda: {"samples": ones(1, 4, 8, 8)}, False),
    ("MASK", lambda: ones(8, 8), True),
    ("MASK", lambda: ones(1, 8, 8), True),
    ("MASK", lambda: ones(1, 1, 8, 8), True),
    ("MASK", lambda: ones(8), False),
    ("MASK", lambda: ones(1, 1, 1, 8, 8), False),
    ("LATENT", lambda: {"samples": ones(1, 4, 8, 8)}, True),
    ("LATENT", lambda: {"samples": ones(1, 16, 3, 8, 8), "noise_mask": ones(1, 8, 8), "batch_index": [0]}, True),
    ("LATENT", lambda: {"samples": ones(1, 64, 100), "type": "audio"}, True),
    ("LATENT", lambda: {"samples": ones(8, 8)}, False),
    ("LATENT", lambda: {"samples": "text"}, False),
    ("LATENT", dict, False),
    ("LATENT", lambda: ones(1, 4, 8, 8), False),
    ("AUDIO", lambda: {"waveform": ones(1, 2, 100), "sample_rate": 44100}, True),
    ("AUDIO", lambda: {"waveform": ones(2, 100), "sample_rate": 44100}, False),
    ("AUDIO", lambda: {"waveform": ones(1, 2, 100), "sample_rate": "44100"}, False),
    ("AUDIO", lambda: {"waveform": ones(1, 2, 100)}, False),
    ("CONDITIONING", lambda: [[ones(1, 77, 768), {"pooled_output": ones(1, 768)}]], True),
    ("CONDITIONING", list, True),
    ("CONDITIONING", lambda: [[ones(1, 77, 768)]], False),
    ("CONDITIONING", lambda: [["text", {}]], False),
    ("CONDITIONING", lambda: ["ab"], False),
    ("CONDITIONING", lambda: None, False),
    ("SIGMAS", lambda: ones(21), True),
    ("SIGMAS", lambda: ones(1, 21), False),
    ("INT", lambda: 1, True),
    ("INT", lambda: None, True),
    ("INT", lambda: 1.5, False),
    ("FLOAT", lambda: 1, True),
    ("FLOAT", lambda: "1", False),
    ("STRING", lambda: "a", True),
    ("STRING", lambda: 1, False),
    ("BOOLEAN", lambda: True, True),
    ("COMBO", lambda: "a", True),
    ("SOMETHING", lambda: object(), True),
]


@pytest.mark.parametrize(("kind", "make", "is_one"), CASES)
def test_values_are_checked_by_socket_type(kind, make, is_one):
    value, class_def = make(), type("Node", (), {"RETURN_TYPES": (kind,)})
    check = check_of(kind)
    assert (check is None or check(value)) is is_one
    assert fits(class_def, [[value]]) is is_one


def test_a_number_too_large_to_be_shown_is_refused():
    assert not check_of("INT")(1 << 2000) and not check_of("FLOAT")(1 << 2000)


def test_outputs_are_as_many_as_declared_and_lists_may_be_empty():
    node, listing = (type("Node", (), {"RETURN_TYPES": ("INT", "INT"), "OUTPUT_IS_LIST": flags}) for flags in (None, (True, False)))
    assert fits(node, [[1], [2, 3]]) and fits(listing, [[], [1]])
    for outputs in ([[1]], [[1], [2], [3]], [[], [1]], [1, 2], "12", None):
        assert not fits(node, outputs)
    assert fits(None, []) and not fits(None, [[1]])
