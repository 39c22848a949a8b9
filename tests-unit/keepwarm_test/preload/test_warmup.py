"""The prompt that runs at the start: read, cut down to what computes, and what is said when that fails."""

import json

import pytest

from custom_nodes.keepwarm.preload.warmup import PausedProviders, WarmupFailed, read_prompt, without_takers

PROMPT = {
    "1": {"class_type": "Load", "inputs": {"name": "a"}},
    "2": {"class_type": "Sample", "inputs": {"model": ["1", 0], "seed": 7, "sizes": [64, 64]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    "4": {"class_type": "Preview", "inputs": {"images": ["2", 0]}},
    "5": {"class_type": "Beep", "inputs": {}},
}


def test_what_only_takes_gives_way_to_what_shows_the_same():
    prompt, outputs = without_takers(PROMPT, ["3", "4", "5", "2"])
    assert outputs == ["warm-up 2 0", "2"]
    assert prompt == {"1": PROMPT["1"], "2": PROMPT["2"], "warm-up 2 0": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}}}
    assert set(PROMPT) == {"1", "2", "3", "4", "5"}


def test_a_prompt_may_lie_in_a_request(tmp_path):
    file = tmp_path / "prompt.json"
    for document in (PROMPT, {"prompt": PROMPT, "client_id": "me"}):
        file.write_text(json.dumps(document))
        assert read_prompt(str(file)) == PROMPT


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "neither a workflow as the page saves it nor a prompt"),
        ('{"1": {"inputs": {}}}', "neither a workflow"),
        ('{"nodes": [3]}', "prompt.json: "),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, text, said):
    file = tmp_path / "prompt.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(WarmupFailed, match=said) as refused:
        read_prompt(str(file))
    assert str(file) in str(refused.value)


def test_providers_are_paused_in_the_block_only():
    class Provider:
        is_paused = False

    class Around:
        def __init__(self, inner):
            self.inner = inner

    plain, wrapped = Provider(), Provider()
    with pytest.raises(KeyError), PausedProviders([plain, Around(Around(wrapped))]):
        assert plain.is_paused and wrapped.is_paused
        raise KeyError
    assert not plain.is_paused and not wrapped.is_paused
