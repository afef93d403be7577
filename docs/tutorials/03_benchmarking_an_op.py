"""
Benchmarking an op
==================

How fast is a fused op, and is it right? This tutorial holds ``symmetric_kl_direction`` against
autograd through the textbook formula: first the answer, then the time.
"""

# %%
# The op gives the divergence of two posteriors and its gradient by the perturbed logits, each row
# scaled to a maximum of one, in one pass. The opponent is what one would write.
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from vaal_ext import ops

torch.set_num_threads(1)


def textbook(a, b):
    b = b.detach().requires_grad_()
    p, q = a.log_softmax(1), b.log_softmax(1)
    value = ((p.exp() - q.exp()) * (p - q)).sum(1)
    (gradient,) = torch.autograd.grad(value.sum(), b)
    return value.detach(), gradient / gradient.abs().amax(1, keepdim=True)


def logits(rows, classes, step):
    a = 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(rows, classes, generator=torch.Generator().manual_seed(1))
    return a, a + step * noise


# %%
# **The answer first.** The truth is the textbook formula on the same float32 logits, computed in
# float64. The error of a row is the largest difference of its direction. The smaller the step
# between the two sets of logits, the more of the textbook's digits cancel.
steps = np.geomspace(1, 1e-5, 11)
errors = {"vaal_ext, float32": [], "textbook, float32": []}
for step in steps:
    a, b = logits(500, 10, step)
    truth = textbook(a.double(), b.double())[1]
    for name, op in (
        ("vaal_ext, float32", ops.symmetric_kl_direction),
        ("textbook, float32", textbook),
    ):
        errors[name].append((op(a, b)[1].double() - truth).abs().amax(1).median().item())
figure, axes = plt.subplots(figsize=(6, 3.6))
for name, values in errors.items():
    axes.loglog(steps, values, marker="o", label=name)
axes.invert_xaxis()
axes.set(
    xlabel="step between the logits", ylabel="error of the direction, median", title="The answer"
)
axes.legend()
figure.tight_layout()


# %%
# **Then the time.** Opponents take turns, so that a busy moment of the machine hits both, and the
# median counts. What is shown is a ratio; above one the op is faster.
def ratio(rows, classes, seconds=0.6):
    a, b = logits(rows, classes, 0.01)
    times = {ops.symmetric_kl_direction: [], textbook: []}
    for op in times:
        op(a, b)  # the first call is not like the others
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for op, took in times.items():
            start = time.perf_counter()
            op(a, b)
            took.append(time.perf_counter() - start)
    ours, theirs = (np.median(took) for took in times.values())
    return theirs / ours


shapes = [(1, 2), (256, 10), (4096, 10), (1024, 100), (1024, 1000)]
ratios = [ratio(*shape) for shape in shapes]
for shape, value in zip(shapes, ratios, strict=True):
    print(f"{shape!s:>14}: the textbook takes {value:.1f} times as long")

# %%
# These are the figures of the machine that built this page, and of one build: the page "Speed" has
# the measured tables, with more opponents and with the comparisons that are lost.
figure, axes = plt.subplots(figsize=(6, 3.2))
axes.barh([str(shape) for shape in shapes], ratios, color="C0")
axes.axvline(1, color="black", linewidth=1)
axes.set(xlabel="time of the textbook, in that of the op", title="The time")
figure.tight_layout()

# %%
# ``vaal-ext bench ops``, in a clone, does this for all ops, number formats and opponents.
