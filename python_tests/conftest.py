"""One thread for the whole suite: its tensors are small, and idle OpenMP threads that spin slow the
processes beside them. test_ops.py sets the count where it tests threads. Ray reports nothing."""

import os

import torch

torch.set_num_threads(1)
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
