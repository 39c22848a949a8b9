"""Keeps what torch computes on the thread that asks for it, where several such threads work side by side already.

Torch spreads large copies over threads of its own, a team for each thread that asks, and these wait for more to do by running in circles,
on cores that the others need.
"""

import contextlib
import functools
from collections.abc import Iterator

import threadpoolctl
import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """This thread computes alone; others, and this one afterwards, do as before.

    Matrix products follow MKL's own number where ``torch.set_num_threads`` has set one.
    """
    torch.get_num_threads()  # a thread that asks for the first time takes the process's number, and would do so later
    with _pools().limit(limits=1, user_api="openmp"):
        yield


@functools.cache
def _pools() -> threadpoolctl.ThreadpoolController:
    """Those of the libraries that are loaded now, torch's among them."""
    return threadpoolctl.ThreadpoolController()
