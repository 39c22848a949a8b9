"""Nodes for datasets: files, pictures, texts, videos, buckets."""

import asyncio

import numpy
import pytest
import torch
from PIL import Image

import folder_paths
from comfy_extras import dataset_bases, dataset_files, dataset_pictures, dataset_texts, dataset_videos, nodes_dataset

NODES = {one.GET_SCHEMA().node_id: one for one in asyncio.run(asyncio.run(nodes_dataset.comfy_entrypoint()).get_node_list())}


def run(name, *values, **settings):
    return NODES[name].execute(*values, **settings).args


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for kind in ("input", "output"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def grey(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level,) * 3).save(path)


def test_folders_are_read_by_name_with_repeats_and_captions(folders):
    root = folders / "input" / "set"
    for name, level in (("b.png", 2), ("a.JPG", 1), ("2_more/c.png", 3), ("other/d.png", 4)):
        grey(root / name, level)
    (root / "b.txt").write_text(" a cat \n", encoding="utf-8")
    (images,) = run("LoadImageDataSetFromFolder", "set")
    assert [round(one[0, 0, 0, 0].item() * 255) for one in images] == [1, 2]
    images, texts = run("LoadImageTextDataSetFromFolder", "set")
    assert [round(one[0, 0, 0, 0].item() * 255) for one in images] == [3, 3, 1, 2, 4] and texts == ["", "", "", "a cat", ""]
    assert NODES["LoadImageDataSetFromFolder"].INPUT_TYPES()["required"]["folder"][1]["options"] == ["set", "set/2_more", "set/other"]


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "a\0b"])
def test_other_folders_are_refused(folders, name):
    with pytest.raises(ValueError, match="leads out"):
        run("LoadImageDataSetFromFolder", name)
    with pytest.raises(ValueError, match="leads out"):
        run("SaveImageDataSetToFolder", [torch.rand(1, 2, 2, 3)], [name], ["image"], ["overwrite"])


def test_empty_folders_and_prefixes_with_folders_are_refused(folders):
    (folders / "input" / "empty").mkdir()
    for name in ("LoadImageDataSetFromFolder", "LoadVideoTextDataSetFromFolder"):
        with pytest.raises(ValueError, match="holds no file"):
            run(name, "empty")
    with pytest.raises(ValueError, match="folder_name"):
        run("SaveImageDataSetToFolder", [torch.rand(1, 2, 2, 3)], ["x"], ["../image"], ["overwrite"])


def test_pictures_and_captions_are_written_and_read_again(folders):
    images = [torch.full((1, 2, 2, 3), 0.2), torch.full((2, 2, 2, 3), 0.4)]
    for mode in ("overwrite", "overwrite", "increment"):
        run("SaveImageTextDataSetToFolder", images, ["set"], ["image"], [mode], texts=["a", "b", "ü"])
    written = sorted(path.name for path in (folders / "output" / "set").glob("*.png"))
    assert written[:3] == ["image_00000.png", "image_00001.png", "image_00002.png"] and len(written) == 6
    (folders / "output" / "set").rename(folders / "input" / "set")
    assert run("LoadImageTextDataSetFromFolder", "set")[1][:3] == ["a", "b", "ü"]
    with pytest.raises(ValueError, match="2 captions"):
        run("SaveImageTextDataSetToFolder", images, ["set"], ["image"], ["overwrite"], texts=["a", "b"])


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [
        ("ResizeImagesByShorterEdge", {"shorter_edge": 8}, (2, 8, 16, 3)),
        ("ResizeImagesByLongerEdge", {"longer_edge": 8}, (2, 4, 8, 3)),
        ("CenterCropImages", {"width": 6, "height": 100}, (2, 10, 6, 3)),
        ("RandomCropImages", {"width": 6, "height": 4, "seed": 2**63}, (2, 4, 6, 3)),
    ],
)
def test_pictures_change_their_size_frame_by_frame(name, settings, shape):
    assert run(name, torch.rand(2, 10, 20, 3), **settings)[0].shape == shape


def test_the_middle_is_cut_out():
    image = torch.arange(100).view(1, 10, 10, 1).repeat(1, 1, 1, 3) / 255
    assert torch.allclose(run("CenterCropImages", image, width=2, height=4)[0], image[:, 3:7, 4:6], atol=1 / 255)


def test_values_are_adjusted():
    image = torch.tensor([0.2, 0.5, 0.9]).view(1, 1, 1, 3)
    assert run("NormalizeImages", image, mean=0.5, std=0.5)[0].ravel().tolist() == pytest.approx([-0.6, 0.0, 0.8])
    assert run("AdjustBrightness", image, factor=2.0)[0].ravel().tolist() == pytest.approx([0.4, 1.0, 1.0])
    assert run("AdjustContrast", image, factor=2.0)[0].ravel().tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)


def test_chance_is_repeatable_and_leaves_the_global_generator_alone():
    numpy.random.seed(3)
    expected = numpy.random.rand()
    numpy.random.seed(3)
    pictures = [torch.full((1, 1, 1, 3), float(number)) for number in range(8)]
    first, again, other = (run("ShuffleDataset", pictures, seed=[seed])[0] for seed in (5, 5, 6))
    assert numpy.random.rand() == expected
    order = [[int(one.flatten()[0]) for one in shuffled] for shuffled in (first, again, other)]
    assert order[0] == order[1] == numpy.random.RandomState(5).permutation(8).tolist() and order[0] != order[2]


def test_pairs_stay_together():
    images, texts = [torch.full((1,), float(number)) for number in range(6)], [str(number) for number in range(6)]
    shuffled, captions = run("ShuffleImageTextDataset", images=images, texts=texts, seed=[1])
    assert [str(int(one.item())) for one in shuffled] == captions != texts
    with pytest.raises(ValueError, match="equally long"):
        run("ShuffleVideoTextDataset", videos=[1, 2], texts=["a"], seed=[1])


def test_what_looks_alike_is_kept_once():
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.rand(1, 32, 32, 3, generator=generator) for _ in range(2))
    (kept,) = run("ImageDeduplication", [one, other, one * 0.95], similarity_threshold=[0.95])
    assert len(kept) == 2 and torch.equal(kept[0], one) and torch.equal(kept[1], other)


def test_a_grid_has_its_cells_in_rows():
    pictures = torch.stack([torch.full((4, 4, 3), level) for level in (0.2, 0.4, 0.6)])
    (grid,) = run("ImageGrid", [pictures], columns=[2], cell_width=[32], cell_height=[40], padding=[4])
    assert grid.shape == (1, 84, 68, 3) and not grid[0, 60, 50].any() and not grid[0, 10, 33].any()
    levels = [grid[0, y, x, 0].item() for y, x in ((5, 5), (5, 40), (50, 5))]
    assert levels == pytest.approx([0.2, 0.4, 0.6], abs=1 / 255)
    with pytest.raises(ValueError, match="no images"):
        run("ImageGrid", [], columns=[2], cell_width=[32], cell_height=[40], padding=[4])


def test_lists_are_merged_and_batches_taken_apart():
    (merged,) = run("MergeImageLists", [torch.rand(2, 2, 2, 3), torch.rand(1, 3, 3, 3)])
    assert [tuple(one.shape) for one in merged] == [(1, 2, 2, 3), (1, 2, 2, 3), (1, 3, 3, 3)]
    assert run("MergeTextLists", ["a", "b"]) == (["a", "b"],)
    with pytest.raises(ValueError, match="batch x height"):
        run("MergeImageLists", [torch.rand(2, 2, 3)])


@pytest.mark.parametrize(
    ("name", "settings", "result"),
    [
        ("TextToLowercase", {}, " a cat "),
        ("TextToUppercase", {}, " A CAT "),
        ("TruncateText", {"max_length": 2}, " A"),
        ("AddTextPrefix", {"prefix": "x"}, "x A cat "),
        ("AddTextSuffix", {"suffix": "x"}, " A cat x"),
        ("ReplaceText", {"find": "cat", "replace": "dog"}, " A dog "),
        ("StripWhitespace", {}, "A cat"),
    ],
)
def test_texts_change(name, settings, result):
    assert run(name, " A cat ", **settings) == (result,)


def test_latents_of_one_size_become_a_batch():
    latents = [
        {"samples": torch.full((2, 4, 8, 8), 1.0)},
        {"samples": torch.full((1, 4, 8, 4), 2.0)},
        {"samples": torch.full((1, 4, 8, 8), 3.0)},
    ]
    batches, conditions = run("ResolutionBucket", latents, [["a", "b"], ["c"], ["d"]])
    assert [one["samples"].shape[0] for one in batches] == [3, 1] and conditions == [["a", "b", "d"], ["c"]]
    assert batches[0]["samples"][2].mean() == 3
    for conditioning in ([["a"]], [["a"], ["c"], ["d"]]):
        with pytest.raises(ValueError, match="conditioning"):
            run("ResolutionBucket", latents, conditioning)


@pytest.fixture
def video(folders):
    """A video of ten frames that grow brighter, five a second, read from its folder."""
    av = pytest.importorskip("av")
    (folders / "input" / "films").mkdir()
    with av.open(str(folders / "input" / "films" / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width = stream.height = 16
        stream.pix_fmt = "bgr0"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(numpy.full((16, 16, 3), number * 20, dtype=numpy.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (folders / "input" / "films" / "a.txt").write_text("film", encoding="utf-8")
    (videos, texts) = run("LoadVideoTextDataSetFromFolder", "films")
    assert texts == ["film"] and len(run("LoadVideoDataSetFromFolder", "films")[0]) == 1
    return videos[0]


def numbers_of(video):
    return [round(frame[0, 0, 0].item() * 255 / 20) for frame in video.get_components().images]


def test_frames_are_taken_out_of_videos(video):
    taken = {one: numbers_of(run("VideoFrameSample", video, 3, one, 4)[0]) for one in ("uniform", "head", "tail", "random")}
    assert taken["uniform"] == [0, 4, 9] and taken["head"] == [0, 1, 2] and taken["tail"] == [7, 8, 9]
    assert taken["random"] == sorted(numpy.random.RandomState(4).choice(10, size=3, replace=False).tolist())
    assert numbers_of(run("VideoFrameSample", video, 1, "uniform", 0)[0]) == [5]


def test_pieces_are_cut_out_of_videos(video):
    assert numbers_of(run("VideoTemporalCrop", video, 4, 3)[0]) == [4, 5, 6]
    assert numbers_of(run("VideoTemporalCrop", video, 99, 3)[0]) == [9]
    start = numpy.random.RandomState(7).randint(0, 7)
    assert numbers_of(run("VideoRandomTemporalCrop", video, 4, 7)[0]) == list(range(start, start + 4))


def test_all_nodes_are_there_once():
    modules = (dataset_files.FILE_NODES, dataset_pictures.PICTURE_NODES, dataset_texts.TEXT_NODES, dataset_videos.VIDEO_NODES)
    assert len(NODES) == sum(map(len, modules)) + 1 == 32
    assert dataset_bases.random_numbers(2**64 - 1).randint(10) == dataset_bases.random_numbers((2**64 - 1) % (2**32 - 1)).randint(10)
