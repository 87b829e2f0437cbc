"""Quantities as Kubernetes writes them: `500m`, `2`, `64Mi`, `1e3`."""

from __future__ import annotations

from decimal import Decimal

_SUFFIXES = {
    **{
        suffix: Decimal(1000) ** power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def quantity(text: str) -> Decimal:
    """Return the number that a quantity is.

    Raises:
        ValueError: it is none.
    """
    number = text.rstrip("inumkKMGTPE") if not _is_exponent(text) else text
    suffix = text[len(number) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"{text} is no quantity")
    return Decimal(number) * _SUFFIXES[suffix]


def _is_exponent(text: str) -> bool:
    head, mark, tail = text.replace("E", "e").partition("e")
    return bool(mark and head and tail)
