"""Keys that are equal iff loading again gives the same weights; fingerprints of what files contain."""

import enum
import json
import os

import pytest

from comfy.ram_model_cache.weights_key import FileIdentity, FingerprintMemo, NotCacheable, content_fingerprint, difference, weights_key


class Kind(enum.IntEnum):
    """An option as loaders take it."""

    SDXL = 1


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(tensors.values()))
    return path


@pytest.fixture
def file(tmp_path):
    return write_safetensors(tmp_path / "a.safetensors", {"large": bytes(range(256)) * 100, "small": b"xyz"})


def test_same_load_gives_the_same_key(file):
    options = {"dtype": None, "kind": Kind.SDXL, "model_options": {"b": 1, "a": [1, 2.5, "x"]}}
    assert weights_key("model", [file], options) == weights_key("model", [str(file)], dict(reversed(options.items())))


@pytest.mark.parametrize("one, other", [(1, True), (1, 1.0), (1, "1"), ([1], (1,)), ({"a": 1}, {"a": 2}), ({1}, [1]), (Kind.SDXL, 1)])
def test_values_of_other_type_or_content_differ(file, one, other):
    assert weights_key("model", [file], {"o": one}) != weights_key("model", [file], {"o": other})


def test_an_option_of_none_counts_as_not_given(file):
    assert weights_key("model", [file], {"dtype": None}) == weights_key("model", [file])


def test_link_and_its_target_are_one_file(file, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(file)
    assert weights_key("vae", [link]) == weights_key("vae", [file])


def test_order_of_files_counts(file, tmp_path):
    other = write_safetensors(tmp_path / "b.safetensors", {"x": b"1"})
    assert weights_key("clip", [file, other]) != weights_key("clip", [other, file])


@pytest.mark.parametrize(
    "value, what",
    [(len, "a callable"), (Kind, "a class"), ({"deep": [lambda: 0]}, "a callable"), (float("nan"), "not a number"), (object(), "a object")],
)
def test_options_without_a_value_are_refused_with_the_reason(file, value, what):
    with pytest.raises(NotCacheable, match=what):
        weights_key("model", [file], {"model_options": value})


def test_endless_nesting_is_refused(file):
    loop = []
    loop.append(loop)
    with pytest.raises(NotCacheable, match="nested"):
        weights_key("model", [file], {"o": loop})


def test_torch_types_are_values_and_tensors_are_not(file):
    torch = pytest.importorskip("torch")
    halves = weights_key("model", [file], {"dtype": torch.float16, "device": torch.device("cpu")})
    assert halves != weights_key("model", [file], {"dtype": torch.bfloat16, "device": torch.device("cpu")})
    with pytest.raises(NotCacheable, match="Tensor"):
        weights_key("model", [file], {"o": torch.zeros(1)})


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights_key("model", [tmp_path / "none"])


def test_difference_names_what_changed(file, tmp_path):
    first = weights_key("model", [file], {"dtype": "fp16"})
    assert difference(first, first) is None
    assert difference(first, weights_key("model", [file], {"dtype": "bf16"})) == "options differ: dtype was 'fp16', now 'bf16'"
    assert "not given" in difference(first, weights_key("model", [file]))
    os.utime(file, ns=(1, 1))
    assert difference(first, weights_key("model", [file], {"dtype": "fp16"})) == "file changed: a.safetensors (time)"
    assert difference(first, weights_key("vae", [file])).startswith("component differs")
    other = write_safetensors(tmp_path / "b.safetensors", {"x": b"1"})
    assert difference(first, weights_key("model", [other])) == "other files"


def test_replaced_file_gives_another_key(file, tmp_path):
    before = weights_key("model", [file])
    newer = write_safetensors(tmp_path / "newer", {"large": bytes(25600), "small": b"xyz"})
    status = os.stat(file)
    os.utime(newer, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(newer, file)
    assert "inode" in difference(before, weights_key("model", [file]))


def test_a_file_overwritten_in_place_with_its_old_times_is_another_one(file):
    before, status = weights_key("model", [file]), os.stat(file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    while os.stat(file).st_ctime_ns == status.st_ctime_ns:
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert difference(before, weights_key("model", [file])) == "file changed: a.safetensors (time of change)"
    assert not before.is_current()


@pytest.mark.parametrize(
    "touch", [lambda file: file.chmod(0o600), lambda file: os.link(file, file.with_suffix(".link"))], ids=["mode", "link"]
)
def test_a_file_whose_time_of_change_moved_is_read_again(file, touch):
    before = weights_key("model", [file])
    while weights_key("model", [file]) == before:
        file.with_suffix(".link").unlink(missing_ok=True)
        touch(file)
    assert not before.is_current()


def test_label_names_component_and_files(file):
    assert weights_key("clip", [file]).label == "clip of a.safetensors"


def test_fingerprint_follows_contents_not_names(file, tmp_path):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    assert content_fingerprint(copy) == content_fingerprint(file)
    assert len(content_fingerprint(file)) == 64


@pytest.mark.parametrize("position, sampled", [(0, True), (25599, True), (25602, True), (12800, False)])
def test_fingerprint_samples_both_ends_of_every_tensor_and_strict_reads_all(tmp_path, position, sampled):
    data = bytearray(bytes(range(256)) * 100 + b"xyz")
    path = write_safetensors(tmp_path / "a", {"large": bytes(data[:25600]), "small": bytes(data[25600:])})
    before, before_strict = content_fingerprint(path), content_fingerprint(path, strict=True)
    data[position] ^= 255
    write_safetensors(path, {"large": bytes(data[:25600]), "small": bytes(data[25600:])})
    assert (content_fingerprint(path) != before) is sampled
    assert content_fingerprint(path, strict=True) != before_strict


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\x05" + bytes(7) + b"[1,2]" + bytes(100), bytes(20000), (60_000).to_bytes(8, "little") + b"[" * 60_000]
)
def test_other_files_are_hashed_whole(tmp_path, content):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    before = content_fingerprint(path)
    path.write_bytes(content + b"!")
    assert content_fingerprint(path) != before


def test_memo_saves_the_reads_until_the_file_changes(file, tmp_path, monkeypatch):
    memo = FingerprintMemo(tmp_path / "memo")
    first = content_fingerprint(file, memo)
    monkeypatch.setattr("comfy.ram_model_cache.weights_key._hash_range", lambda *args: pytest.fail("was read again"))
    assert content_fingerprint(file, memo) == first
    with pytest.raises(pytest.fail.Exception):
        content_fingerprint(file, memo, strict=True)
    os.utime(file, ns=(1, 1))
    with pytest.raises(pytest.fail.Exception):
        content_fingerprint(file, memo)


def test_damaged_memo_is_ignored(file, tmp_path):
    memo = FingerprintMemo(tmp_path / "memo")
    first = content_fingerprint(file, memo)
    for noted in (tmp_path / "memo").iterdir():
        noted.write_text("{")
    assert content_fingerprint(file, memo) == first


def test_file_that_changes_while_it_is_read_is_refused(file, monkeypatch):
    states = iter([FileIdentity.of(file), FileIdentity(str(file), 1, 1, 1, 1, 1)])
    monkeypatch.setattr(FileIdentity, "of", classmethod(lambda cls, path: next(states)))
    with pytest.raises(RuntimeError, match="changed while"):
        content_fingerprint(file)


def test_key_tells_whether_its_files_are_still_the_same(file):
    key = weights_key("model", [file])
    assert key.is_current()
    os.utime(file, ns=(1, 1))
    assert not key.is_current()
    file.unlink()
    assert not key.is_current()
