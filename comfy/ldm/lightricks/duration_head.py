"""LTX 2.4's head that tells from a prompt how long its shot would be; in its authors' weight names.

Shapes: B batch, T tokens, Q learnt tokens, C width of a token.
"""

from __future__ import annotations

import torch

FRAMES_PER_CELL = 8  # the first frame has a latent one of its own


class AttentionPooler(torch.nn.Module):
    """A few learnt tokens look at all."""

    def __init__(self, hidden_dim: int = 256, num_queries: int = 1, num_heads: int = 4) -> None:
        super().__init__()
        self.query_tokens = torch.nn.Parameter(torch.empty(num_queries, hidden_dim))
        self.cross_attn = torch.nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """B x T x C to B x Q x C."""
        asking = self.query_tokens.expand(len(tokens), -1, -1)
        pooled: torch.Tensor = self.cross_attn(asking, tokens, tokens, need_weights=False)[0]
        return pooled


class DurationHead(torch.nn.Module):
    """The head, in float32. It looks at the tokens that the model's connectors make of a prompt, for videos, for sound, or both."""

    FLOAT32 = ("",)
    source_name: str

    def __init__(
        self,
        video_cross_attention_dim: int = 4096,
        audio_cross_attention_dim: int = 2048,
        pooler_hidden_dim: int = 256,
        num_queries: int = 1,
        num_pooler_heads: int = 4,
        mlp_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.video_input_proj = torch.nn.Linear(video_cross_attention_dim, pooler_hidden_dim)
        self.video_modality_emb = torch.nn.Parameter(torch.empty(pooler_hidden_dim))
        self.audio_input_proj = torch.nn.Linear(audio_cross_attention_dim, pooler_hidden_dim)
        self.audio_modality_emb = torch.nn.Parameter(torch.empty(pooler_hidden_dim))
        self.attention_pooler = AttentionPooler(pooler_hidden_dim, num_queries, num_pooler_heads)
        self.mlp_hidden = torch.nn.Linear(pooler_hidden_dim * num_queries, mlp_hidden)
        self.mlp_out = torch.nn.Linear(mlp_hidden, 1)

    def forward(self, video_tokens: torch.Tensor | None = None, audio_tokens: torch.Tensor | None = None) -> torch.Tensor:
        """B x T x width of each to seconds: B. Raises ``ValueError`` for neither."""
        kinds = (
            (video_tokens, self.video_input_proj, self.video_modality_emb),
            (audio_tokens, self.audio_input_proj, self.audio_modality_emb),
        )
        tokens = [project(given) + kind for given, project, kind in kinds if given is not None]
        if not tokens:
            raise ValueError("a duration is told from tokens for videos, for sound, or both; there are none")
        pooled = self.attention_pooler(torch.cat(tokens, dim=1)).flatten(1)
        made: torch.Tensor = self.mlp_out(torch.nn.functional.gelu(self.mlp_hidden(pooled), approximate="tanh"))
        return made.squeeze(-1).exp()


def seconds_to_num_frames(
    seconds: float, frame_rate: float, min_seconds: float, max_seconds: float, time_scale: int = FRAMES_PER_CELL
) -> int:
    """How many frames *seconds* are between the least and the most, as a whole number of *time_scale* and one: the number below, or that
    above where it would be too short; never more than the most.
    """
    least, most = max(1, round(min_seconds * frame_rate)), round(max_seconds * frame_rate)
    wanted = max(least, min(round(seconds * frame_rate), most))
    frames = (wanted - 1) // time_scale * time_scale + 1
    return frames if frames >= least else min(frames + time_scale, most)
