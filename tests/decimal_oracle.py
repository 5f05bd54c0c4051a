"""The formulas of the objectives in 40 digits, written from the papers and from nothing else.

Slow, and without any care for cancellation: 40 digits leave room for it.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal, getcontext

getcontext().prec = 40
Distribution = list[Decimal]


def softmax(logits: Sequence[float]) -> Distribution:
    powers = [Decimal(logit).exp() for logit in logits]
    total = sum(powers, Decimal(0))
    return [power / total for power in powers]


def kl(p: Distribution, q: Distribution) -> Decimal:
    pairs = [(x, y) for x, y in zip(p, q, strict=True) if x > 0]
    if any(y == 0 for _, y in pairs):
        return Decimal("Infinity")
    return sum((x * (x / y).ln() for x, y in pairs), Decimal(0))


def entropy(p: Distribution) -> Decimal:
    return -sum((x * x.ln() for x in p if x > 0), Decimal(0))


def mixed(p: Distribution, q: Distribution, weight: float) -> Distribution:
    w = Decimal(weight)
    return [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]


def tvd(p: Distribution, q: Distribution) -> Decimal:
    return sum((abs(x - y) for x, y in zip(p, q, strict=True)), Decimal(0)) / 2


def jsd(p: Distribution, q: Distribution, beta: float) -> Decimal:
    m, b = mixed(p, q, beta), Decimal(beta)
    return b * kl(p, m) + (1 - b) * kl(q, m)


def alpha_beta(p: Distribution, q: Distribution, alpha: float, beta: float) -> Decimal:
    a, b = Decimal(alpha), Decimal(beta)
    pairs = list(zip(p, q, strict=True))
    if a == 0 and b == 0:
        terms = [(y.ln() - x.ln()) ** 2 / 2 for x, y in pairs]
    elif a == 0:
        terms = [(y**b * (b * (y / x).ln() - 1) + x**b) / b**2 for x, y in pairs]
    elif b == 0:
        terms = [(x**a * (a * (x / y).ln() - 1) + y**a) / a**2 for x, y in pairs]
    elif a + b == 0:
        terms = [(a * (y / x).ln() + (x / y) ** a - 1) / a**2 for x, y in pairs]
    else:
        c = a + b
        terms = [-(x**a * y**b - a / c * x**c - b / c * y**c) / (a * b) for x, y in pairs]
    return sum(terms, Decimal(0))


def assistant(p: Distribution, q: Distribution, alpha: float, weight: float) -> Distribution:
    """AMiD's alpha-mixture, normalised."""
    w, s = Decimal(weight), (1 - Decimal(alpha)) / 2

    def power_mean(x: Decimal, y: Decimal) -> Decimal:
        if s <= 0 and (x == 0 or y == 0):
            return Decimal(0)
        return x**w * y ** (1 - w) if s == 0 else (w * x**s + (1 - w) * y**s) ** (1 / s)

    powers = [power_mean(x, y) for x, y in zip(p, q, strict=True)]
    total = sum(powers, Decimal(0))
    return [power / total for power in powers]


def amid(
    p: Distribution,
    q: Distribution,
    alpha: float,
    weight: float,
    divergence: Callable[[Distribution, Distribution], Decimal],
    order: str,
) -> Decimal:
    arguments = {"p": p, "q": q, "r": assistant(p, q, alpha, weight)}
    return divergence(arguments[order[0]], arguments[order[1]])


def hellinger(p: Distribution, q: Distribution) -> Decimal:
    return sum(((x.sqrt() - y.sqrt()) ** 2 for x, y in zip(p, q, strict=True)), Decimal(0)) / 2


def alphanet(p: Distribution, q: Distribution, one: float, other: float) -> Decimal:
    """AlphaNet's alpha-divergences (sum q (p/q)^a - 1) / (a (a - 1)), the larger."""

    def of(alpha: float) -> Decimal:
        a = Decimal(alpha)
        powers = [y * (x / y) ** a for x, y in zip(p, q, strict=True)]
        return (sum(powers, Decimal(0)) - 1) / (a * (a - 1))

    return max(of(one), of(other))


def adaptive_kl(p: Distribution, q: Distribution, mu: float) -> Decimal:
    """For p without ties."""
    gaps = {True: Decimal(0), False: Decimal(0)}
    cumulative = Decimal(0)
    for rank, (x, y) in enumerate(sorted(zip(p, q, strict=True), reverse=True)):
        cumulative += x
        gaps[rank == 0 or cumulative <= Decimal(mu)] += abs(x - y)
    return (gaps[True] * kl(p, q) + gaps[False] * kl(q, p)) / (gaps[True] + gaps[False])


def bdkd(p: Distribution, q: Distribution) -> Decimal:
    flatter = entropy(p) > entropy(q)
    return (2 if flatter else 1) * kl(p, q) + (1 if flatter else 2) * kl(q, p)


def todi(p: Distribution, q: Distribution) -> Decimal:
    terms = [
        1 / (1 + y / x) * x * (x / y).ln() + 1 / (1 + x / y) * y * (y / x).ln()
        for x, y in zip(p, q, strict=True)
    ]
    return sum(terms, Decimal(0))


def over_pairs(
    p: Distribution, q: Distribution, first: Distribution, second: Distribution
) -> Decimal:
    """Concrete score distillation, summed over all pairs of ids as the paper writes it."""
    d = [(y / x).ln() for x, y in zip(p, q, strict=True)]
    terms = [
        v * w * (one - other) ** 2
        for v, other in zip(first, d, strict=True)
        for w, one in zip(second, d, strict=True)
    ]
    return sum(terms, Decimal(0)) / 2


def uniform(p: Distribution) -> Distribution:
    return [1 / Decimal(len(p))] * len(p)


def split(p: Distribution, label: int) -> tuple[Distribution, Distribution]:
    """(p_label, 1 - p_label), and p without the label, renormalised."""
    others = [x for v, x in enumerate(p) if v != label]
    mass = sum(others, Decimal(0))
    return [p[label], mass], [x / mass for x in others]
