#!/usr/bin/python3
"""Makes golden.txt: logits, loss and gradients of a small NeuroLLM, computed with PyTorch (Debian: python3-torch) in double.

Run it in this folder: ./make_golden.py > golden.txt
The weights are not in the file; they follow from a formula that the test repeats (see `weight`).
"""
import math
import torch

torch.set_default_dtype(torch.float64)

L, D, H, G, F, V = 2, 64, 4, 2, 96, 128
B, S = 2, 12
HEAD = D // H
EPS, BASE = 1e-6, 10000.0


def weight(name, shape):
    """Digits of a sine far behind the point: uniform in +-0.5 to the eye, the same everywhere, without a generator."""
    count = math.prod(shape)
    offset = sum(ord(c) * (i + 1) for i, c in enumerate(name)) % 1009
    i = torch.arange(count, dtype=torch.float64)
    scaled = torch.sin((i + 1) * 1.6180339887 + offset * 0.7310585786) * 43758.5453
    noise = scaled - torch.floor(scaled) - 0.5
    value = 1 + 0.4 * noise if len(shape) == 1 else 0.4 * noise
    return value.to(torch.float32).to(torch.float64).reshape(shape).requires_grad_()


shapes = {"embed.weight": (V, D), "head.weight": (V, D), "norm.weight": (D,)}
for l in range(L):
    p = f"layers.{l}."
    shapes.update({p + "attn.q.weight": (D, D), p + "attn.k.weight": (G * HEAD, D), p + "attn.v.weight": (G * HEAD, D),
                   p + "attn.o.weight": (D, D), p + "ffn.gate.weight": (F, D), p + "ffn.up.weight": (F, D),
                   p + "ffn.down.weight": (D, F), p + "attn_norm.weight": (D,), p + "ffn_norm.weight": (D,)})
w = {name: weight(name, shape) for name, shape in shapes.items()}


def norm(x, gain):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * gain


def rope(x):  # [B, S, heads, HEAD], adjacent pairs
    inverse = BASE ** (-torch.arange(0, HEAD, 2, dtype=torch.float64) / HEAD)
    angle = torch.arange(S, dtype=torch.float64)[:, None] * inverse[None, :]
    turned = torch.view_as_complex(x.reshape(B, S, -1, HEAD // 2, 2)) * torch.polar(torch.ones_like(angle), angle)[None, :, None, :]
    return torch.view_as_real(turned).reshape(x.shape)


ids = torch.tensor([[(7 * b + 13 * s + s * s) % V for s in range(S)] for b in range(B)])
labels = torch.tensor([[(5 * b + 11 * s + 3) % V for s in range(S)] for b in range(B)])
labels[0, 4] = -100
x = w["embed.weight"][ids]
for l in range(L):
    p = f"layers.{l}."
    a = norm(x, w[p + "attn_norm.weight"])
    q = rope((a @ w[p + "attn.q.weight"].T).view(B, S, H, HEAD))
    k = rope((a @ w[p + "attn.k.weight"].T).view(B, S, G, HEAD))
    v = (a @ w[p + "attn.v.weight"].T).view(B, S, G, HEAD)
    k, v = (t.repeat_interleave(H // G, dim=2) for t in (k, v))
    score = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(HEAD)
    score = score.masked_fill(torch.triu(torch.ones(S, S, dtype=torch.bool), 1), float("-inf"))
    o = torch.einsum("bhij,bjhd->bihd", score.softmax(-1), v).reshape(B, S, D)
    x = x + o @ w[p + "attn.o.weight"].T
    f = norm(x, w[p + "ffn_norm.weight"])
    x = x + (torch.nn.functional.silu(f @ w[p + "ffn.gate.weight"].T) * (f @ w[p + "ffn.up.weight"].T)) @ w[p + "ffn.down.weight"].T
logits = norm(x, w["norm.weight"]) @ w["head.weight"].T
loss = torch.nn.functional.cross_entropy(logits.view(-1, V), labels.view(-1), ignore_index=-100)
loss.backward()

print("# made by make_golden.py with PyTorch", torch.__version__)
print("shape", L, D, H, G, F, V, B, S)
print("loss %.12g" % loss.item())
for b in range(B):
    for s in (0, 5, S - 1):
        print("logits", b, s, " ".join("%.8g" % z for z in logits[b, s].tolist()))
for name in sorted(w):
    g = w[name].grad.reshape(-1)
    picked = range(0, g.numel(), max(1, g.numel() // 97))
    print("gradient", name, "%.12g" % g.norm().item(), " ".join("%d:%.8g" % (i, g[i].item()) for i in picked))
