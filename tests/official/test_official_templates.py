"""Official templates of video and sound over HTTP, and of frames between others: converted, made small, run to files that play."""

import re

import pytest
from live_server import ROOT
from made_files import Video, decoded_sound, decoded_video, files_of, pictures, promised
from small_prompts import number_of, small
from template_inputs import FRAMES, write_input
from template_models import MODELS, write_model, write_tokenizers

from app.workflow_pages.conversion import page_to_prompt
from scripts.coverage import published, templates

pytestmark = pytest.mark.timeout(3600)

FAMILIES = re.compile(r"WAN|LTX|HunyuanVideo15|MiniMaxH3|ACEStep|StableAudio|SeedVR2")
COVERED = re.compile(r"^\| (\S+) \| \d+ \| covered \|$", re.MULTILINE)
INPUT, MARK = "input", "names_this_folder"
NETWORKS = ("diffusion_models", "checkpoints")
TOOLS = ("frame_interpolation",)  # folders of models that are no family's
LARGER = ("EmptyLTXVLatentVideo", "LTXVImgToVideo")  # of prompts that begin with half of their pixels, whose latents have large patches
SECOND = 25  # frames of LTX for a second at 25 per second: after the first, groups of eight
# (frames, width, height) of each video, where they are others than those asked for.
OTHER_VIDEOS = {
    "video_minimax_h3_i2v": [(5, 320, 320)],  # sides come of a number of pixels, of which 0.1 million are the fewest
    "video_minimax_h3_i2v_continuation": [(5, 320, 320)],
    "video_minimax_h3_multiframe_reference": [(5, 416, 256)],
    "video_minimax_h3_r2v": [(5, 416, 256)],
    "video_minimax_h3_t2v": [(5, 416, 256)],
    "video_fastvideo_fasth3_i2v": [(5, 160, 64)],  # 0.01 million pixels in steps of 32
    "video_fastvideo_fasth3_t2v": [(5, 320, 320)],
    "video_fasth3_ominiref_r2v": [(5, 416, 256)],
    "video_ltx2_3_i2v": [(SECOND, 192, 128)],
    "video_ltx2_3_t2v": [(SECOND, 192, 128)],
    "video_ltx2_5_i2v": [(SECOND, 384, 256)],  # an upscaler doubles the sides
    "video_ltx2_5_t2v": [(SECOND, 384, 256)],
    "video_ltx2_5_flf2v": [(SECOND, 192, 128)],
    "video_ltx2_3_flf2v": [(SECOND, 192, 128)],
    "template_ltx2_3_ic_lora_ingredients": [(SECOND, 192, 128)],
    "template_ltx2_3_style_transition": [(SECOND, 192, 128)],
    "video_bernini_r_video_editing": [(FRAMES, 128, 64)],  # as many as the video that is changed has
    "video_wan_animate2": [(9, 256, 64), (9, 128, 64)],  # the same of two parts, which share a frame
    "video_wan_animate2_distilled": [(5, 256, 64), (5, 128, 64)],  # the first is beside what it was made from
    "video_wan2_2_14B_s2v": [(22, 128, 64)],  # three parts of two latents and one once more, without the first three frames
    "video_wan2_1_infinitetalk": [(5, 128, 64), (10, 128, 64)],  # two, and both after another
    "templates-6-key-frames": [(25, 128, 64)],  # five parts
    # The first part, and of the second what follows the five frames that both share: at least one.
    "video_wan21_scail2_character_replacement": [(5, 128, 64), (6, 128, 64)],
    "video_wan21_scail2_character_replacement_int8": [(5, 128, 64), (6, 128, 64)],
    "utility_seedvr2_3b_int8_upscale_video": [(FRAMES, 256, 128)],  # twice the sides of the video that is enlarged
    "utility_video_frame_interpolation": [(2 * FRAMES - 1, 128, 64)],
    "video_wan_vace_flf2v": [(17, 128, 64)],  # a second at 16 per second
}
TRIMS = "TrimAudioDuration"
SAVES = {"SaveVideo", "SaveAnimatedWEBP", "SaveImage", "PreviewImage", "SaveAudioAdvanced", "SaveAudioMP3"}


@pytest.fixture(scope="module")
def official():
    """{name: template} of the official ones that the page says are covered."""
    try:
        folder = templates.find_folder(None)
    except templates.NoTemplatesError as error:
        pytest.skip(str(error))
    covered = set(COVERED.findall((ROOT / "docs" / "reference" / "coverage.md").read_text(encoding="utf-8")))
    return {template.name: template for template in templates.read_templates(folder) if template.name in covered}


class Bench:
    """A server in whose folders the files lie that prompts name: small ones, written when the first prompt names them."""

    def __init__(self, start_server):
        self.server = start_server(
            "--fp32-text-enc", "--offline", "--ram-model-cache-mb", "1500", environment={"OMP_NUM_THREADS": "1"}, start_timeout_s=300
        )
        self.models = self.server.base / "models"
        for folder in {folder for folder, _, _ in MODELS}:
            self._touch(self.models / folder / f"{MARK}.{folder}.safetensors")
        for ending in (".png", ".mp4", ".wav"):
            self._touch(self.server.base / INPUT / f"{MARK}.{INPUT}{ending}")
        write_tokenizers(self.models / "text_encoders")
        self.classes = self.server.get("/object_info")

    @staticmethod
    def _touch(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def prompt_of(self, template):
        return page_to_prompt(template.workflow, self.classes.get, choose=lambda options: options[0])

    def files_of(self, prompt):
        """(folder, file) for each file that a node of *prompt* chooses from a list of files."""
        found = set()
        for node in prompt.values():
            for section in self.classes[node["class_type"]]["input"].values():
                for name, spec in section.items():
                    marked = re.search(rf"{MARK}\.(\w+)\.", str(spec))
                    if marked and isinstance(node["inputs"].get(name), str):
                        found.add((marked[1], node["inputs"][name]))
        return found

    def place(self, prompt, width, height):
        """Write the files that *prompt* names and that are not there."""
        for folder, name in self.files_of(prompt):
            path = self.server.base / INPUT / name if folder == INPUT else self.models / folder / name
            if path.exists():
                continue
            if folder == INPUT:
                write_input(path, width, height)
            else:
                write_model(path, folder)

    def try_template(self, template):
        """What is wrong with what came of *template*, and how much was checked."""
        prompt = self.prompt_of(template)
        kinds = {node["class_type"] for node in prompt.values()}
        width, height, length = (192, 128, 9) if kinds & set(LARGER) else (128, 64, 5)
        prompt = small(prompt, width, height, length)
        self.place(prompt, width, height)
        run = self.server.run(prompt, timeout_s=600)
        status = run.history["status"]
        assert status["status_str"] == "success", next(
            (f"{told['node_type']}: {told['exception_message']}" for kind, told in status["messages"] if kind == "execution_error"), status
        )
        saving = [name for name, node in prompt.items() if node["class_type"] in SAVES]
        assert saving, kinds
        made = [check(prompt, name, run) for name in saving]
        videos = [(one.frames, *one.size) for one in made if isinstance(one, Video)]
        assert videos == OTHER_VIDEOS.get(template.name, [(length, width, height)] * len(videos)), videos
        return made


def check(prompt, name, run):
    """Hold the files of node *name* against what *prompt* asks for; returns what they are."""
    kind, contents = prompt[name]["class_type"], files_of(run, name)
    assert contents, f"{kind} {name} made no file"
    if kind == "SaveVideo":
        video, (rate, heard) = decoded_video(contents[0]), promised(prompt, name)
        assert video.rate == pytest.approx(rate, abs=0.01) and video.seconds == pytest.approx(video.frames / rate, abs=0.05), video
        assert video.frames > 1 and video.deviation > 2, video
        assert (video.sound_seconds is not None) == heard, video
        given = [number_of(prompt, other["inputs"]["duration"]) for other in prompt.values() if other["class_type"] == TRIMS]
        seconds = min([video.seconds, *filter(None, given)])  # of a sound that is given, so much is cut out
        assert not heard or video.sound_seconds == pytest.approx(seconds, abs=0.1), video
        return video
    if "Audio" in kind:
        rate, seconds, deviation = decoded_sound(contents[0])
        assert rate in (44100, 48000) and seconds > 0.5 and deviation > 1e-4, (rate, seconds, deviation)
        return rate, seconds
    frames = [frame for content in contents for frame in pictures(content)]
    assert max(frame[..., :3].std() for frame in frames) > 2, "flat"
    assert kind != "SaveAnimatedWEBP" or len(frames) > 1
    return kind, len(frames), frames[0].shape


def of_families(bench, official):
    """Those of *official* whose networks are of the families, or that load a model of ``TOOLS``."""

    def counts(folder, name):
        return folder in TOOLS or (folder in NETWORKS and FAMILIES.search(published.family_of(folder, name) or "") is not None)

    return [template for template in official.values() if any(counts(*file) for file in bench.files_of(bench.prompt_of(template)))]


def test_a_song_and_a_picture_of_a_video_model_are_made(start_server, official):
    """Of the families that have no other test over HTTP in every run."""
    bench = Bench(start_server)
    for name in ("audio_ace_step_1_t2a_song", "image_minimax_h3_t2i"):
        assert bench.try_template(official[name])


@pytest.mark.long
def test_every_covered_template_makes_files_that_play(start_server, official):
    bench = Bench(start_server)
    wrong, right = {}, {}
    for template in of_families(bench, official):
        try:
            right[template.name] = bench.try_template(template)
        except Exception as error:
            wrong[template.name] = f"{type(error).__name__}: {error}"
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())
    assert len(right) >= 86
