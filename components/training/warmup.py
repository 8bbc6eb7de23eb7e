"""The warm-up of a method's own terms."""

from components.params import Train


def warmup_weight(epoch: int, settings: Train) -> float:
    """w_e = min(1, (e + 1) / warmup_epochs) in (0, 1], epochs counted from 0: never 0, not even in the first."""
    return min(1.0, (epoch + 1) / settings.warmup_epochs)
