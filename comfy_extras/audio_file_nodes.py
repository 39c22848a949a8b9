"""Nodes that read sound from the server's folders and write it there (part of ``nodes_audio``)."""

from __future__ import annotations

import hashlib
from typing import Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io, ui
from comfy_extras.audio_reading import read_audio
from comfy_extras.audio_values import Audio, audio_of, required
from utils.folder_walk import regular_files_in
from utils.regular_files import open_regular

torch = lazy_module("torch")

MP3_QUALITIES = ["V0", "128k", "320k"]
OPUS_QUALITIES = ["64k", "96k", "128k", "192k", "320k"]


def _saving_inputs(**tooltips: str) -> list[io.Input]:
    prefix = io.String.Input("filename_prefix", default="audio/ComfyUI", tooltip=tooltips.get("filename_prefix"))
    return [io.Audio.Input("audio", tooltip=tooltips.get("audio")), prefix]


def _saving_schema(node_id: str, display_name: str, inputs: list[io.Input], **more: Any) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category="audio",
        inputs=inputs,
        hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        is_output_node=True,
        outputs=[io.Audio.Output("audio")],
        **more,
    )


def _saved(cls: type[io.ComfyNode], audio: Audio | None, filename_prefix: str, format: str, quality: str) -> io.NodeOutput:
    """*audio* as it came, once each of its sounds is a file in the output folder."""
    sound = dict(required(audio, cls.GET_SCHEMA().node_id))
    shown = ui.AudioSaveHelper.get_save_audio_ui(sound, filename_prefix=filename_prefix, cls=cls, format=format, quality=quality)
    return io.NodeOutput(audio, ui=shown)


class SaveAudio(io.ComfyNode):
    """Writes sound as FLAC into the output folder and passes it on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _saving_schema(
            "SaveAudio",
            "Save Audio (FLAC) (DEPRECATED)",
            _saving_inputs(),
            essentials_category="Audio",
            search_aliases=["export flac"],
            is_deprecated=True,
        )

    @classmethod
    def execute(cls, audio: Audio | None, filename_prefix: str = "ComfyUI", format: str = "flac") -> io.NodeOutput:
        """*audio* as it came. Raises ``ValueError`` without sound, and for a prefix that leads out of the output folder."""
        return _saved(cls, audio, filename_prefix, format, "128k")

    save_flac = execute


class SaveAudioMP3(io.ComfyNode):
    """Writes sound as MP3 into the output folder and passes it on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _saving_schema(
            "SaveAudioMP3",
            "Save Audio (MP3) (DEPRECATED)",
            [*_saving_inputs(), io.Combo.Input("quality", options=MP3_QUALITIES, default="V0")],
            essentials_category="Audio",
            search_aliases=["export mp3"],
            is_deprecated=True,
        )

    @classmethod
    def execute(cls, audio: Audio | None, filename_prefix: str = "ComfyUI", format: str = "mp3", quality: str = "128k") -> io.NodeOutput:
        """*audio* as it came; *quality* is a bit rate, or V0 for a variable one. Raises as :class:`SaveAudio`."""
        return _saved(cls, audio, filename_prefix, format, quality)

    save_mp3 = execute


class SaveAudioOpus(io.ComfyNode):
    """Writes sound as Opus into the output folder and passes it on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _saving_schema(
            "SaveAudioOpus",
            "Save Audio (Opus) (DEPRECATED)",
            [*_saving_inputs(), io.Combo.Input("quality", options=OPUS_QUALITIES, default="128k")],
            search_aliases=["export opus"],
            is_deprecated=True,
        )

    @classmethod
    def execute(cls, audio: Audio | None, filename_prefix: str = "ComfyUI", format: str = "opus", quality: str = "128k") -> io.NodeOutput:
        """*audio* as it came; *quality* is a bit rate. Opus has few sample rates; others are brought to the next one."""
        return _saved(cls, audio, filename_prefix, format, quality)

    save_opus = execute


class SaveAudioAdvanced(io.ComfyNode):
    """Writes sound in a chosen format into the output folder and passes it on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = [
            io.DynamicCombo.Option("flac", []),
            io.DynamicCombo.Option("mp3", [io.Combo.Input("quality", options=MP3_QUALITIES, default="V0")]),
            io.DynamicCombo.Option("opus", [io.Combo.Input("quality", options=OPUS_QUALITIES, default="128k")]),
        ]
        prefix_help = "How file names begin, subfolders included; tokens such as %date:yyyy-MM-dd% are filled in."
        inputs = [
            *_saving_inputs(audio="The sound to write.", filename_prefix=prefix_help),
            io.DynamicCombo.Input("format", options=options, tooltip="The kind of file."),
        ]
        aliases = ["save audio", "export audio", "output audio", "write audio", "flac", "mp3", "opus"]
        description = "Writes the sound into the output folder, without loss (flac) or smaller (mp3, opus)."
        return _saving_schema("SaveAudioAdvanced", "Save Audio (Advanced)", inputs, description=description, search_aliases=aliases)

    @classmethod
    def execute(cls, audio: Audio | None, filename_prefix: str, format: dict[str, Any]) -> io.NodeOutput:
        """*audio* as it came; *format* holds the format's name and, where it has one, its quality. Raises as :class:`SaveAudio`."""
        return _saved(cls, audio, filename_prefix, format["format"], format.get("quality") or "128k")


class PreviewAudio(io.ComfyNode):
    """Plays sound on the page: writes it as FLAC into the folder for temporary files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _saving_schema(
            "PreviewAudio",
            "Preview Audio",
            [io.Audio.Input("audio")],
            description="Plays the sound without keeping it in the output folder.",
            search_aliases=["play audio"],
        )

    @classmethod
    def execute(cls, audio: Audio | None) -> io.NodeOutput:
        """*audio* as it came. Raises ``ValueError`` without sound."""
        return io.NodeOutput(audio, ui=ui.PreviewAudio(dict(required(audio, "PreviewAudio")), cls=cls))

    save_flac = execute


class _FromFile(io.ComfyNode):
    """Reads the sound of one file that the input names."""

    @classmethod
    def execute(cls, audio: str) -> io.NodeOutput:
        """The sound of the file named *audio*, one in a batch."""
        waveform_CT, sample_rate_hz = read_audio(folder_paths.get_annotated_filepath(audio))
        return io.NodeOutput(audio_of(waveform_CT.unsqueeze(0), sample_rate_hz))

    @classmethod
    def fingerprint_inputs(cls, audio: str) -> str:
        """The SHA-256 of the file's contents."""
        with open_regular(folder_paths.get_annotated_filepath(audio)) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    @classmethod
    def validate_inputs(cls, audio: str) -> bool | str:
        """Whether the file exists inside its folder; otherwise the error text."""
        return True if audio and folder_paths.exists_annotated_filepath(audio) else f"Invalid audio file: {audio}"

    load = execute


class LoadAudio(_FromFile):
    """Reads the first sound track of a sound or video file of the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = [entry.name for entry in regular_files_in(folder_paths.get_input_directory())]
        files = sorted(folder_paths.filter_files_content_types(names, ["audio", "video"]))
        return io.Schema(
            node_id="LoadAudio",
            display_name="Load Audio",
            category="audio",
            essentials_category="Audio",
            search_aliases=["import audio", "open audio", "audio file"],
            inputs=[io.Combo.Input("audio", upload=io.UploadType.audio, options=files)],
            outputs=[io.Audio.Output()],
        )


class RecordAudio(_FromFile):
    """Reads what the page recorded with the microphone, which it uploads before it queues the prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RecordAudio",
            display_name="Record Audio",
            category="audio",
            search_aliases=["microphone input", "audio capture", "voice input"],
            inputs=[io.Custom("AUDIO_RECORD").Input("audio")],
            outputs=[io.Audio.Output()],
        )
