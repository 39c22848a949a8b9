"""Files that queued prompts name."""

from ram_cache_fakes import Key

from comfy.ram_model_cache.pending import PendingFiles


def test_paths_keep_their_order_and_their_repeats():
    assert list(PendingFiles(["/b", "/a", "/b"])) == ["/b", "/a", "/b"]


def test_a_model_is_named_by_any_of_its_files():
    pending = PendingFiles(["/a", "/b"])
    assert pending.name(Key("both", ["/x", "/b"])) and not pending.name(Key("other", ["/x"]))
    assert not pending.name(Key("without files")) and not pending.name("plain text") and not PendingFiles().name(Key("a", ["/a"]))
