"""Wan's nodes."""

from __future__ import annotations

from comfy_extras.node_extension import extension_of
from comfy_extras.wan_animate_nodes import WanAnimate2Cache, WanAnimate2ToVideo, WanAnimateToVideo
from comfy_extras.wan_control_nodes import TrimVideoLatent, Wan22FunControlToVideo, WanFunControlToVideo, WanVaceToVideo
from comfy_extras.wan_picture_nodes import (
    Wan22ImageToVideoLatent,
    WanCameraImageToVideo,
    WanFirstLastFrameToVideo,
    WanFunInpaintToVideo,
    WanImageToVideo,
    WanPhantomSubjectToVideo,
)
from comfy_extras.wan_sound_nodes import WanHuMoImageToVideo, WanSoundImageToVideo, WanSoundImageToVideoExtend
from comfy_extras.wan_talk_nodes import WanInfiniteTalkToVideo
from comfy_extras.wan_track_nodes import WanTrackToVideo

PICTURES = (
    WanImageToVideo,
    WanTrackToVideo,
    WanFirstLastFrameToVideo,
    WanFunInpaintToVideo,
    WanPhantomSubjectToVideo,
    Wan22ImageToVideoLatent,
)
VIDEOS = (WanFunControlToVideo, Wan22FunControlToVideo, WanVaceToVideo, WanCameraImageToVideo, TrimVideoLatent)

SOUNDS = (WanSoundImageToVideo, WanSoundImageToVideoExtend, WanHuMoImageToVideo, WanInfiniteTalkToVideo)
MOVES = (WanAnimateToVideo, WanAnimate2ToVideo, WanAnimate2Cache)

comfy_entrypoint = extension_of(*PICTURES, *VIDEOS, *SOUNDS, *MOVES)
