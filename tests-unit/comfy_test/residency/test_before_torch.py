"""What is decided before torch is imported: the allocator, and whether the attention that flags ask for is here."""

import argparse
import os
import subprocess
import sys

import pytest

from app.running.environment import set_environment
from comfy.cli_flags import build_parser, settle
from comfy.residency import attention_asked
from comfy.residency.allocator import ASYNC, VARIABLE, choose_allocator
from comfy.residency.device_table import default_reserve_bytes

MIB = 1 << 20


def flags(*words: str) -> argparse.Namespace:
    parser = build_parser()
    parsed = parser.parse_args(list(words))
    settle(parsed, parser)
    return parsed


def allocator(*words: str, version: str = "2.13.0+cu128", cards: tuple[str, ...] = ("GPU 0: NVIDIA H200",), given: str = "") -> str:
    """What *words* make of the environment variable."""
    environment = {VARIABLE: given} if given else {}
    asked = flags(*words)
    assert choose_allocator(asked, environment, lambda: version, lambda: list(cards)) is asked.cuda_malloc
    return environment.get(VARIABLE, "")


def test_cards_with_memory_pools_get_the_asynchronous_allocator() -> None:
    assert allocator() == ASYNC
    assert allocator(cards=("GPU 0: NVIDIA GeForce GTX 1660 SUPER",)) == ASYNC
    assert allocator(cards=("GPU 0: NVIDIA GeForce RTX 4090", "GPU 1: NVIDIA GeForce GTX 970")) == ""
    for old in ("GeForce GTX 1650", "Quadro M2000", "Tesla M40", "GeForce MX130", "GeForce GTX 750 Ti", "Quadro K2200"):
        assert allocator(cards=(f"GPU 0: NVIDIA {old}",)) == "", old
    assert allocator(version="2.13.0+cu130", cards=("GPU 0: NVIDIA GeForce GTX 1650",)) == ASYNC
    assert allocator(version="2.13.0+cpu") == allocator(version="2.13.0+rocm6.4") == allocator(version="") == ""


def test_flags_decide_over_it() -> None:
    assert allocator("--cuda-malloc", version="2.13.0") == ASYNC
    assert allocator("--disable-cuda-malloc") == allocator("--fast", "autotune") == allocator("--cpu") == ""
    assert allocator(given="expandable_segments:True") == f"expandable_segments:True,{ASYNC}"
    assert allocator(given="backend:native") == "backend:native"


def test_neither_it_nor_the_check_of_packages_imports_torch() -> None:
    code = (
        "import sys; from comfy.cli_args import args; from app.running.environment import set_environment; set_environment(args);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_a_flag_whose_package_is_missing_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_asked.importlib.util, "find_spec", lambda name: None)
    for flag, package in (
        ("--use-sage-attention", "sageattention"),
        ("--use-flash-attention", "flash-attn"),
        ("--use-ck-attention", "comfy-kitchen"),
    ):
        with pytest.raises(SystemExit, match=f"{flag} needs the package {package}"):
            set_environment(flags(flag))
    assert attention_asked.missing_package(flags("--use-split-cross-attention")) is None
    assert not attention_asked.may_have_int8_attention()


@pytest.fixture(autouse=True)
def environment_is_as_before() -> object:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_windows_is_left_more_of_a_card() -> None:
    sizes = [default_reserve_bytes(system, total << 30) for system, total in (("Linux", 24), ("Windows", 8), ("Windows", 24))]
    assert sizes == [400 * MIB, 600 * MIB, 700 * MIB]
