"""Nodes that do nothing, for benchmarks that time what happens around nodes; also for processes that run another checkout."""


class BenchPass:
    """Returns its input."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("*",), "go", "benchmark"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("*", {}), "salt": ("INT", {})}}

    def go(self, value, salt):
        return (value,)


class BenchEnd(BenchPass):
    """The output node; takes any number of linked inputs."""

    OUTPUT_NODE = True

    def go(self, salt, **values):
        return (len(values),)


NODES = {"BenchPass": BenchPass, "BenchEnd": BenchEnd}
