"""What a reader casts stays on its thread; other threads, and the same one afterwards, compute as before."""

import threading

import torch

from comfy.one_thread import one_thread


def test_only_this_thread_computes_alone_and_only_meanwhile():
    before, inside, elsewhere = torch.get_num_threads(), threading.Event(), threading.Event()
    counts = {}

    def reader():
        with one_thread():
            counts["meanwhile"] = torch.get_num_threads()
            inside.set()
            elsewhere.wait(60)
        counts["afterwards"] = torch.get_num_threads()

    def other():
        inside.wait(60)
        counts["elsewhere"] = torch.get_num_threads()
        elsewhere.set()

    try:
        torch.set_num_threads(3)
        threads = [threading.Thread(target=reader), threading.Thread(target=other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == {"meanwhile": 1, "afterwards": 3, "elsewhere": 3} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
