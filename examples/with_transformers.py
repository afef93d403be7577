"""transformers: which of 200 texts to label, by a classifier of token ids (here a tiny one)."""

import torch
from transformers import BertConfig, BertForSequenceClassification

from vaal_ext import LDRScorer, select
from vaal_ext.integrations.transformers import TokenEmbeddings

torch.manual_seed(0)
config = BertConfig(
    vocab_size=100,
    num_labels=4,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    initializer_range=0.2,
)
classifier = BertForSequenceClassification(config)  # yours: from_pretrained, and fine-tuned

# What a tokenizer gives with padding=True, return_tensors="pt".
attention_mask = (torch.arange(12) < torch.randint(3, 13, (200, 1))).long()
input_ids = torch.randint(1, 100, (200, 12)) * attention_mask

texts = TokenEmbeddings(classifier)
scorer = LDRScorer(texts, encode=texts.encode, eps=0.5)
scores = scorer.score(torch.stack([input_ids, attention_mask], dim=1), progress=False)
query = select(scores.ldr, scores.pseudo_label, n=5, num_classes=4)
for sample in query:
    print(f"text {sample}: LDR {scores.ldr[sample]:.4f}, class {scores.pseudo_label[sample]}")
