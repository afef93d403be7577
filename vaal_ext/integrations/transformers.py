"""Hugging Face transformers: LDR of texts, by perturbation of their token embeddings."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["TokenEmbeddings"]


class TokenEmbeddings(nn.Module):
    """A sequence classifier as a function of its token embeddings::

        texts = TokenEmbeddings(classifier)
        scorer = LDRScorer(texts, encode=texts.encode, eps=0.1)
        scores = scorer.score(torch.stack([tokens.input_ids, tokens.attention_mask], dim=1))

    Pairs of texts (questions with answers, say) bring their segments as a third row, where the
    tokenizer gives them: ``torch.stack([tokens.input_ids, tokens.attention_mask,
    tokens.token_type_ids], dim=1)``.

    The network is called as always, with input_ids, attention_mask and token_type_ids, and what its
    embedding layer gives is replaced on the way: positions, segments, pooling and padding are its
    own. Embeddings of padding are not perturbed, and count in no norm. To the right of a text
    padding changes its score by rounding alone; to the left it moves the text, which then starts
    from another direction.

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
        self._looked_for_pairs = False

    def encode(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """The point that is perturbed.

        The first batch without segments is looked at: where the network has segment embeddings and
        the texts look like pairs (their last token, the separator, stands inside them too), a
        UserWarning says what is missing.

        Args:
            tokens: int64 [B, 2, T]: token ids, and the attention mask (1 at tokens, 0 at padding);
                or [B, 3, T] with the segments (token_type_ids).

        Returns:
            The embeddings [B, T, E], where there are tokens bool [B, T], the ids int64 [B, T] and,
            where they came, the segments int64 [B, T].

        Raises:
            TypeError, ValueError: tokens of another dtype or shape.
        """
        if tokens.dtype != torch.int64:
            raise TypeError(f"tokens must be int64, got {tokens.dtype}")
        if tokens.ndim != 3 or tokens.shape[1] not in (2, 3):
            raise ValueError(
                "tokens must be [B, 2, T], ids and attention mask, as torch.stack([input_ids, "
                "attention_mask], dim=1) gives them, or [B, 3, T] with token_type_ids; got shape "
                f"{list(tokens.shape)}"
            )
        ids, mask, *segments = tokens.unbind(1)
        if not segments and not self._looked_for_pairs:
            self._warn_of_pairs(ids, mask)
            self._looked_for_pairs = True
        return self.classifier.get_input_embeddings()(ids), mask != 0, ids, *segments

    def forward(
        self, embeddings: Tensor, mask: Tensor, ids: Tensor, segments: Tensor | None = None
    ) -> Tensor:
        """Logits [B, C] of what :meth:`encode` gave, with the embeddings as they are passed.

        Shapes and dtypes: see :meth:`encode`.

        Raises:
            TypeError: segments for a network that takes none.
            ValueError: the network does not use its input embeddings exactly once.
        """
        calls = 0

        def replace(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return embeddings

        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if segments is not None:
            inputs["token_type_ids"] = segments
        hook = self.classifier.get_input_embeddings().register_forward_hook(replace)
        try:
            logits: Tensor = self.classifier(**inputs).logits
        finally:
            hook.remove()
        if calls != 1:
            raise ValueError(
                f"the network used its input embeddings {calls} times: expected once (of an "
                "encoder and a decoder it is not clear which to perturb)"
            )
        return logits

    def _warn_of_pairs(self, ids: Tensor, mask: Tensor) -> None:
        if getattr(self.classifier.config, "type_vocab_size", 0) < 2 or ids.shape[1] == 0:
            return
        # The place of each text's last token, wherever its padding stands.
        last = ids.shape[1] - 1 - mask.flip(1).ne(0).int().argmax(1)
        separator = ids.gather(1, last[:, None])
        inside = ((ids == separator) & (mask != 0)).sum(1) > 1
        if bool((separator == separator[:1]).all()) and bool(inside.any()):
            name = type(self.classifier).__name__
            warnings.warn(
                f"{int(inside.sum())} of {len(ids)} texts look like pairs, and {name} has segment "
                "embeddings: without token_type_ids it takes a pair for one text. Give "
                "torch.stack([input_ids, attention_mask, token_type_ids], dim=1)",
                UserWarning,
                stacklevel=3,
            )
