"""How many bytes of RAM a result is said to keep in use."""

import logging
from types import SimpleNamespace

from comfy_execution.local_caches.result_size import host_bytes


class Tensor:
    def __init__(self, count, device="cpu"):
        self.count = count
        self.device = SimpleNamespace(type=device)

    def numel(self):
        return self.count

    def element_size(self):
        return 4


class Model:
    def model_size(self):
        return 1_000


def test_tensors_in_host_memory_count_wherever_they_are_nested_and_once():
    one = Tensor(10)
    assert host_bytes(SimpleNamespace(outputs=[[one], [{"samples": one, "more": [Tensor(5), None, "text", 3]}]])) == 60
    assert host_bytes([Tensor(10, "cuda"), Tensor(1)]) == 4


def test_arrays_bytes_and_models_count_too():
    assert host_bytes([SimpleNamespace(nbytes=7), b"abc", bytearray(2)]) == 12
    assert host_bytes([Model(), SimpleNamespace(patcher=Model())]) == 2_000
    assert host_bytes([object(), lambda: 1]) == 0


def test_an_object_that_does_not_answer_counts_nothing_and_is_logged(caplog):
    class Broken:
        def model_size(self):
            raise OSError("gone")

    with caplog.at_level(logging.WARNING):
        assert host_bytes([Broken(), b"ab"]) == 2
    assert "Broken" in caplog.text and "gone" in caplog.text


def test_depth_and_circles_do_no_harm():
    value = [b"x"]
    for _ in range(50_000):
        value = [value]
    circle = [b"y"]
    circle.append(circle)
    assert host_bytes([value, circle]) == 2
