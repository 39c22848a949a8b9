"""Receipts by prompt, and the reasons for misses in words."""

import contextvars
import os

from comfy.ram_model_cache.receipts import PROMPTS_KEPT, RECEIPTS_PER_PROMPT, MissReasons, Receipt, ReceiptBook
from comfy.ram_model_cache.weights_key import weights_key
from comfy.units import megabytes

RECEIPT = Receipt("model of a", "disk", 2_000_000_000, 1.5, True, "first use")


def test_receipts_of_another_context_do_not_mix_with_the_prompts():
    book = ReceiptBook()
    outside = contextvars.copy_context()
    contextvars.copy_context().run(lambda: (book.begin("p"), book.add(RECEIPT)))
    outside.run(book.add, RECEIPT)
    assert len(book.of("p")) == len(book.of(None)) == 1
    assert book.summary("p") == "models of prompt p: model of a from disk (2.00 GB, 1.50 s, first use)"
    assert book.summary("other") == ""


def test_book_is_bounded():
    def fill():
        book = ReceiptBook()
        for index in range(PROMPTS_KEPT + 5):
            book.begin(str(index))
            book.add(RECEIPT)
        for _ in range(RECEIPTS_PER_PROMPT + 5):
            book.add(RECEIPT)
        return book

    book = contextvars.copy_context().run(fill)
    assert book.of("0") == []
    assert len(book.of(str(PROMPTS_KEPT + 4))) == RECEIPTS_PER_PROMPT


def test_reasons_name_the_change(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"1")
    reasons, first = MissReasons(), weights_key("model", [path], {"dtype": "fp16"})
    assert reasons.explain(first) == "first use"
    reasons.loaded(first)
    assert reasons.explain(weights_key("model", [path], {"dtype": "bf16"})) == "options differ: dtype was 'fp16', now 'bf16'"
    assert reasons.explain(weights_key("vae", [path])) == "first use"
    os.utime(path, ns=(1, 1))
    assert reasons.explain(weights_key("model", [path], {"dtype": "fp16"})) == "file changed: a.safetensors (time)"
    reasons.left(first, "evicted (room needed for B)", 0.0)
    assert reasons.explain(first).startswith("evicted (room needed for B) at ")
    reasons.loaded(first)
    assert reasons.explain(first) == "first use"


def test_byte_counts_are_rounded_for_people():
    assert (megabytes(1_500_000), megabytes(2_340_000_000)) == ("1.5 MB", "2.34 GB")
