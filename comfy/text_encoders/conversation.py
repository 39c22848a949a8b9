"""Prompts that text models read as part of a conversation."""

from typing import Any

from comfy.sd1_clip import SD1Tokenizer


class ConversationTokenizer(SD1Tokenizer):
    """Puts prompts into ``llama_template``. Weights in parentheses are plain text."""

    llama_template: str

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, llama_template: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """{name of the text model: chunks of (token, weight)}; *llama_template* has ``{}`` for the text."""
        spoken = (self.llama_template if llama_template is None else llama_template).format(text)
        return super().tokenize_with_weights(spoken, return_word_ids, **{**kwargs, "disable_weights": True})
