"""small-text: an active learner whose transformer (a tiny one, made here) tells even from odd."""

import logging
import tempfile

import numpy as np
import small_text
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from vaal_ext.integrations.small_text import LDRSampling

logging.disable()
torch.manual_seed(0)
np.random.seed(0)
size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
config = BertConfig(vocab_size=25, intermediate_size=64, **size)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(20))]
folder = tempfile.mkdtemp()
BertForSequenceClassification(config).save_pretrained(folder)
BertTokenizer({word: i for i, word in enumerate(words)}).save_pretrained(folder)

ids = torch.randint(5, 25, (200, 1, 6))
y = (ids[:, 0, 0] % 2).numpy()
texts = [(text, torch.ones_like(text), label) for text, label in zip(ids, y, strict=True)]
dataset = small_text.TransformersDataset(texts, target_labels=np.arange(2))
training = {"num_epochs": 20, "lr": 3e-3, "device": "cpu", "mini_batch_size": 32}
arguments = small_text.TransformerModelArguments(folder)
factory = small_text.TransformerBasedClassificationFactory(arguments, 2, training)
strategy = LDRSampling(eps=0.5, seed=0)
learner = small_text.PoolBasedActiveLearner(factory, strategy, dataset)
learner.initialize_data(np.arange(40), y[:40])
for _ in range(3):
    print(
        f"{len(learner.y)} labels: accuracy {np.mean(learner.classifier.predict(dataset) == y):.3f}"
    )
    learner.update(y[learner.query(num_samples=20)])
