"""Names of Wan models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Wan models",
    "sinusoidal_embedding_1d() WanSelfAttention WanT2VCrossAttention:WanSelfAttention WanI2VCrossAttention:WanSelfAttention "
    "repeat_e() WanFeedForward WanAttentionBlock VaceWanAttentionBlock:WanAttentionBlock WanCamAdapter WanCamResidualBlock Head "
    "MLPProj WanModel VaceWanModel:WanModel CameraWanModel:WanModel CausalConv1d MotionEncoder_tc CausalAudioEncoder AdaLayerNorm "
    "AudioInjector_WAN FramePackMotioner WanModel_S2V:WanModel WanT2VCrossAttentionGather:WanSelfAttention AudioCrossAttentionWrapper "
    "WanAttentionBlockAudio:WanAttentionBlock DummyAdapterLayer AudioProjModel HumoWanModel:WanModel SCAILWanModel:WanModel "
    "SCAIL2WanModel:SCAILWanModel",
)
