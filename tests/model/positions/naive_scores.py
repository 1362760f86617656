"""Each encoding that acts on scores, written down a second time: one pair of positions at a time, in float64.

Nothing here uses the package's code. Weights are read from the family under test by their names.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Score = Callable[["Case", int, int], list[Tensor]]
"""Scores of all heads at places i and j."""

Bias = Callable[[Any, "Case", int, int], list[Any]]
"""What a family adds to them."""


class Case:
    """Places of one sample: ids, which positions are kept, which keys are seen; q and k [N, T, H] of one layer."""

    def __init__(self, ids: list[int], keep: list[bool], seen: Tensor, q: Tensor, k: Tensor, layer: int) -> None:
        self.ids, self.keep, self.seen, self.q, self.k, self.layer = ids, keep, seen, q, k, layer

    def plain(self, i: int, j: int) -> list[Tensor]:
        return [(self.q[h, i] * self.k[h, j]).sum() / math.sqrt(self.q.shape[-1]) for h in range(len(self.q))]

    def kept(self, i: int, j: int) -> bool:
        return self.keep[i] and self.keep[j]


def attention(score: Score, case: Case, v: Tensor) -> Tensor:
    """Output [N, T, H] of attention whose scores at i, j are those of `score`."""
    n, length = v.shape[:2]
    rows = []
    for i in range(length):
        seen = [j for j in range(length) if case.seen[i, j]]
        scores = [score(case, i, j) for j in seen]
        for h in range(n):
            weights = torch.stack([s[h] for s in scores]).softmax(0)
            rows.append(sum((w * v[h, j] for w, j in zip(weights, seen, strict=True)), torch.zeros_like(v[h, 0])))
    return torch.stack(rows).unflatten(0, (length, n)).transpose(0, 1)


def added(
    bias: Callable[[Any, Case, int, int], list[Any]],
) -> Callable[[Any], Score]:
    """Scores of an additive bias, which is left out where a position is dropped."""

    def of(family: Any) -> Score:
        def score(case: Case, i: int, j: int) -> list[Tensor]:
            plain = case.plain(i, j)
            if not case.kept(i, j):
                return plain
            return [s + b for s, b in zip(plain, bias(family, case, i, j), strict=True)]

        return score

    return of


def alibi_slopes(n: int) -> list[float]:
    if math.log2(n).is_integer():
        ratio = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [ratio * ratio**i for i in range(n)]
    near = 2 ** math.floor(math.log2(n))
    return alibi_slopes(near) + alibi_slopes(2 * near)[0::2][: n - near]


def alibi(family: Any, case: Case, i: int, j: int) -> list[float]:
    return [-m * abs(case.ids[i] - case.ids[j]) for m in alibi_slopes(len(case.q))]


def within(x: Tensor, low: float, high: float = math.inf) -> Tensor:
    """x, or the bound that it is beyond; with the gradient of x."""
    value = min(max(float(x.detach()), low), high)
    return x * 1 + (value - float(x.detach()))


def kerple_log(family: Any, case: Case, i: int, j: int) -> list[Tensor]:
    d = abs(case.ids[i] - case.ids[j])
    a, p = family.a[case.layer], family.p[case.layer]
    return [-within(p[h], 0.01) * torch.log(1 + within(a[h], 0.01) * d) for h in range(len(a))]


def kerple_power(family: Any, case: Case, i: int, j: int) -> list[Tensor]:
    d = abs(case.ids[i] - case.ids[j])
    a, p = family.a[case.layer], family.p[case.layer]
    if d == 0:
        return [0 * a[h] for h in range(len(a))]
    return [-within(a[h], 0.01) * d ** within(p[h], 0.01, 2.0) for h in range(len(a))]


def sandwich(family: Any, case: Case, i: int, j: int) -> list[float]:
    d, n = case.ids[i] - case.ids[j], len(case.q)
    total = sum(math.cos(d / 10000 ** (2 * index / 128)) for index in range(1, 65))
    # The package subtracts the value at distance 0, which a dropped pair's 0 then equals.
    return [8 * (h + 1) / n * (total - 64) for h in range(n)]


def t5_bucket(d: int, n: int, longest: int) -> int:
    if d < n // 2:
        return max(d, 0)
    return min(n - 1, n // 2 + int(math.log(d / (n // 2)) / math.log(longest / (n // 2)) * (n - n // 2)))


def t5(family: Any, case: Case, i: int, j: int) -> list[Tensor]:
    table = family.tables[0 if len(family.tables) == 1 else case.layer]
    row = table[t5_bucket(case.ids[i] - case.ids[j], family.n_buckets, family.max_distance)]
    return [row[h] for h in range(len(row))]


def _layers(perceptron: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (w1, w2), (b1, b2) = perceptron.weights, perceptron.biases
    return w1[:, :, 0], b1, w2[:, :, 0], b2


def fire(family: Any, case: Case, i: int, j: int, slope: float = 0.0) -> list[Tensor]:
    layer = 0 if len(family.f) == 1 else case.layer
    c, least = family.c[layer][0], abs(family.multiple[layer][0] * family.threshold)
    near = torch.log(abs(c * abs(case.ids[i] - case.ids[j])) + 1)
    far = torch.log(abs(c * torch.maximum(least, least.new_tensor(case.ids[i]))) + 1)
    w1, b1, w2, b2 = _layers(family.f[layer])
    hidden = [w1[u, 0, 0] * near / (far + 1e-6) + b1[u] for u in range(len(b1))]
    hidden = [torch.where(x > 0, x, slope * x) for x in hidden]
    return [sum((w2[h, u, 0] * hidden[u] for u in range(len(hidden))), b2[h]) for h in range(len(b2))]


def leaky_fire(family: Any, case: Case, i: int, j: int) -> list[Tensor]:
    return fire(family, case, i, j, slope=0.01)


def dape(
    static: Callable[[Any, Case, int, int], list[Any]],
) -> Callable[[Any], Score]:
    def of(family: Any) -> Score:
        def score(case: Case, i: int, j: int) -> list[Tensor]:
            w1, b1, w2, b2 = _layers(family.f[case.layer])
            half = w1.shape[-1] // 2

            def bias(key: int) -> list[Any]:
                kept = case.kept(i, key)
                return static(family.static, case, i, key) if kept else [0.0] * len(case.q)

            def hidden(key: int) -> list[Tensor]:
                out = [b1[u] for u in range(len(b1))]
                for offset in range(-half, half + 1):
                    if half and not (0 <= key + offset <= i and case.seen[i, key + offset]):
                        continue
                    x = [*case.plain(i, key + offset), *bias(key + offset)]
                    out = [o + sum(w1[u, c, half + offset] * x[c] for c in range(len(x))) for u, o in enumerate(out)]
                return [torch.where(o > 0, o, 0.01 * o) for o in out]

            plain = case.plain(i, j)
            if not case.kept(i, j):
                return plain
            f = [b2[h] for h in range(len(b2))]
            for offset in range(-half, half + 1):
                if half and not (0 <= j + offset <= i and case.seen[i, j + offset]):
                    continue
                y = hidden(j + offset)
                f = [o + sum(w2[h, u, half + offset] * y[u] for u in range(len(y))) for h, o in enumerate(f)]
            return [s + b + o for s, b, o in zip(plain, bias(j), f, strict=True)]

        return score

    return of


def transformer_xl(family: Any) -> Score:
    def score(case: Case, i: int, j: int) -> list[Tensor]:
        n, _, width = case.q.shape
        d_model, d = n * width, case.ids[i] - case.ids[j]
        angles = [d / 10000 ** (2 * index / d_model) for index in range(d_model // 2)]
        r = case.q.new_tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
        out = []
        for h in range(n):
            part = slice(h * width, (h + 1) * width)
            u, v, w = family.u[case.layer][part], family.v[case.layer][part], family.w[case.layer][part]
            total = (case.q[h, i] + u) @ case.k[h, j]
            if case.kept(i, j):
                total = total + (case.q[h, i] + v) @ (w @ r)
            out.append(total / math.sqrt(width))
        return out

    return score


def t5_unscaled(temperature: float) -> Callable[[Any], Score]:
    def of(family: Any) -> Score:
        def score(case: Case, i: int, j: int) -> list[Tensor]:
            dots = [(case.q[h, i] * case.k[h, j]).sum() for h in range(len(case.q))]
            biases = t5(family, case, i, j) if case.kept(i, j) else [0.0] * len(dots)
            return [(s + b) / temperature for s, b in zip(dots, biases, strict=True)]

        return score

    return of
