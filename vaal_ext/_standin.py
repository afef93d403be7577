import torch


def fisher_direction(logits):
    a = logits.double()
    p = torch.softmax(a, 1)
    top2, idx = p.topk(2, 1)
    lo, hi = top2[:, 1:2].clone(), top2[:, :1].clone()
    k = idx[:, :1]
    others = p.scatter(1, k, 0.0)
    pk = p.gather(1, k)
    for _ in range(60):
        lam = (lo + hi) / 2
        g = (others / (lam - others)).scatter(1, k, 0.0).sum(1, keepdim=True) - pk / (pk - lam)
        up = g > 0
        lo = torch.where(up, lam, lo)
        hi = torch.where(up, hi, lam)
    lam = (lo + hi) / 2
    v = (others / (lam - others)).scatter(1, k, -pk / (pk - lam))
    v = v / v.abs().amax(1, keepdim=True)
    acc = torch.promote_types(logits.dtype, torch.float32)
    return v.to(logits.dtype), lam.squeeze(1).to(acc)
