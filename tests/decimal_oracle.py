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
    return sum((x * (x / y).ln() for x, y in zip(p, q, strict=True)), Decimal(0))


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
    if s == 0:
        powers = [x**w * y ** (1 - w) for x, y in zip(p, q, strict=True)]
    else:
        powers = [(w * x**s + (1 - w) * y**s) ** (1 / s) for x, y in zip(p, q, strict=True)]
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
