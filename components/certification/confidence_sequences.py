"""Bounds on a probability p that hold at all numbers of samples together: look at any time, stop at any time.

After k hits in t samples, the evidence against a probability q is

    E(q) = log Q - k log q - (t - k) log(1 - q),    Q = integral of x^k (1 - x)^(t - k) over a prior of x,

and the lower bound is the largest q < k / t whose evidence reaches log(1 / failure_prob). The prior is Beta(1/2, 1/2),
of which the share `above` is moved above 1/2: a half leaves it as it is, 1 truncates it to (1/2, 1].

With probability >= 1 - failure_prob no look ever gives a bound >= p. Proof, for any prior that is fixed beforehand:
exp E(p) at the true p is a non-negative martingale that starts at 1 (the likelihood ratio of the mixture to the truth),
so that by Ville's inequality E(p) ever reaches log(1 / failure_prob) with probability failure_prob at most. And a bound
q >= p needs p <= q < k / t, where E falls (its derivative is (t q - k) / (q (1 - q))), so that E(p) >= E(q) >=
log(1 / failure_prob): every wrong bound, at any look, lies in that one event. No union bound is spent; without the
condition q < k / t this would fail. (The search below keeps to it by itself: E(k / t) <= 0, as no likelihood in the
mixture exceeds that of k / t.)

The bound grows with k. Proof: E(q) is convex in k (the log of a mixture of exponentials in k, less a linear function)
and <= 0 at k = t q, where q is the most likely probability; so beyond t q it grows once it is positive.
"""

import math

from scipy.special import betaincc, betaln

from components.certification.bounds import complement, round_down

ROUNDING = 1e-6
"""Evidence demanded beyond the threshold: more than the error of computing it, for up to 1e7 samples."""
BISECTIONS = 44
"""Halvings of [0, 1] in the search for a bound, to far less than its decimals."""


def log_mixture(k: int, t: int, above: float) -> float:
    """log Q: of the mixture's likelihood of one sequence with `k` hits in `t` samples; -inf where it underflows."""
    likelihood = float(betaln(k + 0.5, t - k + 0.5) - betaln(0.5, 0.5))
    share = float(betaincc(k + 0.5, t - k + 0.5, 0.5))  # of the posterior above 1/2, with the prior as it is
    moved = 2 * (above * share + (1 - above) * (1 - share))
    return likelihood + math.log(moved) if moved > 0 else -math.inf


def anytime_lower_bound(k: int, t: int, failure_prob: float, above: float) -> float:
    """A bound below p, at all looks together, from `k` hits in `t` samples: rounded down.

    Args:
        above: the share of the prior above 1/2. It changes how near the bound is, not whether it holds: the more, the
            nearer where p is above 1/2.
    """
    needed = ROUNDING - math.log(failure_prob) - log_mixture(k, t, above)
    low, high = 0.0, k / t  # low has the evidence, high has not, and it falls between them
    for _ in range(BISECTIONS if k else 0):
        middle = (low + high) / 2
        if -k * math.log(middle) - (t - k) * math.log1p(-middle) >= needed:
            low = middle
        else:
            high = middle
    return round_down(low)


def anytime_upper_bound(k: int, t: int, failure_prob: float, below: float) -> float:
    """A bound above p, at all looks together: 1 less the lower bound on the probability of the t - k misses.

    Args:
        below: the share of the prior below 1/2.
    """
    return complement(anytime_lower_bound(t - k, t, failure_prob, above=below))
