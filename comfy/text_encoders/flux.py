"""Names of Flux models that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Flux models",
    "T5XXLTokenizer:comfy.sd1_clip.SDTokenizer FluxTokenizer:object FluxClipModel flux_clip() load_mistral_tokenizer() "
    "MistralTokenizerClass:object Mistral3Tokenizer:comfy.sd1_clip.SDTokenizer Flux2Tokenizer:comfy.sd1_clip.SD1Tokenizer "
    "Mistral3_24BModel:comfy.sd1_clip.SDClipModel Flux2TEModel:comfy.sd1_clip.SD1ClipModel flux2_te() "
    "Qwen3Tokenizer:comfy.sd1_clip.SDTokenizer Qwen3Tokenizer8B:comfy.sd1_clip.SDTokenizer KleinTokenizer:comfy.sd1_clip.SD1Tokenizer "
    "KleinTokenizer8B:KleinTokenizer Qwen3_4BModel:comfy.sd1_clip.SDClipModel Qwen3_8BModel:comfy.sd1_clip.SDClipModel klein_te()",
)
