"""What holds for all unit tests."""

import gc


def pytest_collection_finish() -> None:
    """Take what was imported out of garbage collections: tests that force one would else walk through all of torch each time."""
    gc.collect()
    gc.freeze()
