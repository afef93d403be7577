"""One thread for the whole suite: its tensors are small, and idle OpenMP threads that spin slow the
processes beside them. test_ops.py sets the count where it tests threads."""

import torch

torch.set_num_threads(1)
