"""Prints the worked values of the tests beside it, computed apart from the code under test: exact fractions, rounded to f32
by the struct module where the specification rounds."""
import hashlib
import math
import struct
from decimal import Decimal, getcontext
from fractions import Fraction

getcontext().prec = 40


def f32(x):
    return Fraction(struct.unpack("<f", struct.pack("<f", float(x)))[0])


def round_half_even(x):
    return round(x)  # of a Fraction: half to even


def quantized(values, limit):
    scale = f32(max(abs(v) for v in values) / limit)
    return scale, [max(-limit, min(limit, round_half_even(f32(v / scale)))) for v in values]


x = [f32(v) for v in ("0.0127", "-0.0254", "0.00015", "0.0251", "0.0001", "-0.00025")]
for limit in (127, 7):
    scale, q = quantized(x, limit)
    print(f"limit {limit}: scale {float(scale):.9g} q {q}")

# Four contributions of one tensor of three; the last one lies.
rows = [[1, 2, -1], [2, 1, -2], [3, 4, 0], [-40, 50, 60]]
columns = [sorted(column) for column in zip(*rows)]
print("median", [float(Fraction(c[1] + c[2], 2)) for c in columns])
print("trimmed", [float(Fraction(c[1] + c[2], 2)) for c in columns])  # t = 1 of 4: the same two
n, f = 4, min(4 // 5, (4 - 3) // 2)
scores = []
for i, a in enumerate(rows):
    others = sorted(sum((p - q) ** 2 for p, q in zip(a, b)) for j, b in enumerate(rows) if j != i)
    scores.append(sum(others[: n - f - 2]))
print("krum scores", scores)
five = [[1, 2, -1], [2, 1, -2], [3, 4, 0], [-40, 50, 60], [2, 2, 1]]
n, f = 5, min(1, 1)
scores = []
for i, a in enumerate(five):
    others = sorted(sum((p - q) ** 2 for p, q in zip(a, b)) for j, b in enumerate(five) if j != i)
    scores.append(sum(others[: n - f - 2]))
chosen = sorted(range(n), key=lambda i: (scores[i], i))[: n - f]
print("multi_krum", scores, chosen, [float(Fraction(sum(five[i][k] for i in chosen), n - f)) for k in range(3)])
weights = [Decimal(4).sqrt() * Decimal(1), Decimal(9).sqrt() * Decimal("0.9"), Decimal(16).sqrt() * Decimal("0.3")]
print("mean", [str(sum(w * r[k] for w, r in zip(weights, rows)) / sum(weights))[:14] for k in range(3)])


def weiszfeld(points):
    y = [Decimal(float(Fraction(c[(len(c) - 1) // 2] + c[len(c) // 2], 2))) for c in (sorted(c) for c in zip(*points))]
    for _ in range(100):
        w = [1 / max(sum((Decimal(a) - b) ** 2 for a, b in zip(p, y)).sqrt(), Decimal("1e-10")) for p in points]
        z = [sum(wi * p[k] for wi, p in zip(w, points)) / sum(w) for k in range(len(y))]
        step = sum((a - b) ** 2 for a, b in zip(y, z)).sqrt()
        y = z
        if step < Decimal("1e-6") * (1 + sum(a * a for a in y).sqrt()):
            break
    return y


print("geometric_median", [f"{v:.7f}" for v in weiszfeld(rows)])

# Outer step, first round from v = 0, then a second with the same dbar: w = w0 + 0.7 x 1.9 dbar, then v = 1.9 dbar.
w, v, d = Decimal(1), Decimal(0), Decimal("0.25")
for _ in range(2):
    v = Decimal("0.9") * v + d
    w += Decimal("0.7") * (Decimal("0.9") * v + d)
    print("outer", v, w)
print("z of 1 among 10 equal:", math.sqrt(10))

names = ["%032x" % i for i in range(1, 6)]
for number in (1, 258):
    order = sorted(names, key=lambda name: hashlib.sha256(number.to_bytes(8, "little") + name.encode()).digest())
    print("collectors of round", number, [int(name, 16) for name in order])
