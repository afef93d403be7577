"""Hugging Face transformers: LDR of texts, by perturbation of their token embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["TokenEmbeddings"]


class TokenEmbeddings(nn.Module):
    """A sequence classifier as a function of its token embeddings:

        texts = TokenEmbeddings(classifier)
        scorer = LDRScorer(texts, encode=texts.encode, xi=0.01, eps=0.1)
        scores = scorer.score(torch.stack([tokens.input_ids, tokens.attention_mask], dim=1))

    The network is called as always, with input_ids and attention_mask, and what its embedding layer
    gives is replaced on the way: positions, pooling and padding are its own. Embeddings of padding
    are not perturbed, and count in no norm. To the right of a text padding changes its score by
    rounding alone; to the left it moves the text, which then starts from another direction.

    Args:
        classifier: a PreTrainedModel for sequence classification: its output has `logits` [B, C].

    Raises:
        TypeError: something else.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        if not isinstance(classifier, PreTrainedModel):
            raise TypeError(
                f"classifier must be a PreTrainedModel, got {type(classifier).__name__}"
            )
        self.classifier = classifier

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The point that is perturbed.

        Args:
            tokens: int64 [B, 2, T]: token ids, and the attention mask (1 at tokens, 0 at padding).

        Returns:
            The embeddings [B, T, E], where there are tokens bool [B, T], and the ids int64 [B, T].

        Raises:
            TypeError, ValueError: tokens of another dtype or shape.
        """
        if tokens.dtype != torch.int64:
            raise TypeError(f"tokens must be int64, got {tokens.dtype}")
        if tokens.ndim != 3 or tokens.shape[1] != 2:
            raise ValueError(
                "tokens must be [B, 2, T], ids and attention mask, as torch.stack([input_ids, "
                f"attention_mask], dim=1) gives them; got shape {list(tokens.shape)}"
            )
        ids, mask = tokens.unbind(1)
        return self.classifier.get_input_embeddings()(ids), mask != 0, ids

    def forward(self, embeddings: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """Logits [B, C] of what :meth:`encode` gave, with the embeddings as they are passed.

        Shapes and dtypes: see :meth:`encode`.

        Raises:
            ValueError: the network does not use its input embeddings exactly once.
        """
        calls = 0

        def replace(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return embeddings

        hook = self.classifier.get_input_embeddings().register_forward_hook(replace)
        try:
            logits: Tensor = self.classifier(input_ids=ids, attention_mask=mask.long()).logits
        finally:
            hook.remove()
        if calls != 1:
            raise ValueError(
                f"the network used its input embeddings {calls} times: expected once (of an "
                "encoder and a decoder it is not clear which to perturb)"
            )
        return logits
