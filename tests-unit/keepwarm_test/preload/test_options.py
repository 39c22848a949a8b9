"""What flags and environment ask preloading for."""

from types import SimpleNamespace

import pytest

from custom_nodes.keepwarm.preload.options import ENVIRONMENT, PreloadOptions, read_options


def test_flags_come_before_the_environment_and_either_will_do():
    everything = {
        ENVIRONMENT["preload_config"]: "env.json",
        ENVIRONMENT["preload_only"]: "Yes",
        ENVIRONMENT["save_preload_config"]: "saved.json",
        ENVIRONMENT["warmup_prompt"]: "prompt.json",
        ENVIRONMENT["snapshot_start"]: "1",
    }
    assert read_options(SimpleNamespace(), everything) == PreloadOptions("env.json", False, True, "saved.json", "prompt.json", True)
    flags = SimpleNamespace(preload_config="flag.json", preload_check=True, preload_only=False, snapshot_start=8.9)
    assert read_options(flags, {ENVIRONMENT["preload_config"]: "env.json"}) == PreloadOptions("flag.json", check_only=True, waits=True)
    assert read_options(SimpleNamespace(snapshot_start=None), {}) == PreloadOptions()
    assert not read_options(SimpleNamespace(), {ENVIRONMENT["snapshot_start"]: "0"}).waits


@pytest.mark.parametrize("flag", ["preload_check", "preload_only"])
def test_what_needs_a_config_says_so(flag):
    with pytest.raises(SystemExit, match="needs a file: --preload-config FILE, or KEEPWARM_PRELOAD_CONFIG"):
        read_options(SimpleNamespace(**{flag: True}), {})
