#!/usr/bin/python3
"""Times training steps of train_bench's shapes with Debian's PyTorch (package python3-torch), for orientation.

usage: torch_train.py [SHAPE ...]    shapes S and M; f32; 4 x 256 tokens; tied head; AdamW; medians of 3 steps after a warm-up
"""
import math
import os
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("torch_train.py: PyTorch is not installed (apt-get install python3-torch); nothing to compare with")

torch.set_num_threads(os.cpu_count())  # Debian's build starts with one
SHAPES = {"S": (6, 256, 8, 4, 688), "M": (12, 768, 12, 4, 2048)}
VOCAB, B, T = 32000, 4, 256


class Block(torch.nn.Module):
    def __init__(self, d, heads, kv_heads, ffn):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, d // heads
        linear = lambda n, k: torch.nn.Linear(k, n, bias=False)
        self.qkv = linear((heads + 2 * kv_heads) * self.size, d)
        self.o = linear(d, d)
        self.gate_up = linear(2 * ffn, d)
        self.down = linear(d, ffn)
        self.norm1 = torch.nn.Parameter(torch.ones(d))
        self.norm2 = torch.nn.Parameter(torch.ones(d))

    def forward(self, x, cos, sin, mask):
        q, k, v = self.qkv(norm(x, self.norm1)).view(B, T, -1, self.size).split(
            [self.heads, self.kv_heads, self.kv_heads], dim=2)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        score = (q @ k.transpose(-1, -2)) / math.sqrt(self.size) + mask
        x = x + self.o((score.softmax(-1) @ v).transpose(1, 2).reshape(B, T, -1))
        gate, up = self.gate_up(norm(x, self.norm2)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def norm(x, gain):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gain


def rope(x, cos, sin):
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


class Model(torch.nn.Module):
    def __init__(self, layers, d, heads, kv_heads, ffn):
        super().__init__()
        self.embed = torch.nn.Parameter(torch.randn(VOCAB, d) * 0.02)
        self.blocks = torch.nn.ModuleList(Block(d, heads, kv_heads, ffn) for _ in range(layers))
        self.norm = torch.nn.Parameter(torch.ones(d))
        size = d // heads
        angle = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)
        self.cos, self.sin = angle.cos()[None, :, None, :], angle.sin()[None, :, None, :]
        self.mask = torch.full((T, T), float("-inf")).triu(1)

    def forward(self, ids, labels):
        x = self.embed[ids]
        for block in self.blocks:
            x = block(x, self.cos, self.sin, self.mask)
        return F.cross_entropy((norm(x, self.norm) @ self.embed.T).view(-1, VOCAB), labels.view(-1))


def main():
    print("PyTorch", torch.__version__, "on", torch.get_num_threads(), "threads, f32")
    for name in sys.argv[1:] or ["S", "M"]:
        layers, d, heads, kv_heads, ffn = SHAPES[name]
        model = Model(layers, d, heads, kv_heads, ffn)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
        count = sum(p.numel() for p in model.parameters())
        seconds = []
        for step in range(4):
            ids, labels = torch.randint(VOCAB, (B, T)), torch.randint(VOCAB, (B, T))
            start = time.perf_counter()
            model(ids, labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds[1:])
        operations = B * T * (6 * count + 12 * layers * T * d)
        print(f"{name}: {count / 1e6:.1f} M parameters, {B * T / median:.0f} tokens/s, {operations / median * 1e-9:.0f} GFLOP/s")


main()
