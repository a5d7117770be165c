"""Quantities of processor and memory, as Kubernetes writes them: `500m`, `0.5`, `128Mi`, `1G`, `1e3`.

Exact: computed in whole numbers and fractions, never in floats, and rounded up as
Kubernetes does, so that a request is never booked as less than was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from bayplan.resources.problems import quote

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
}
_SUFFIXES = {**_DECIMAL, **{suffix: Fraction(factor) for suffix, factor in _BINARY.items()}}

# The lengths are bounded because Python's big numbers are not: 1e999999999 must cost nothing.
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})"
    r"(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]{1,20}(?:[.,][0-9]{1,9})?)\s*([A-Za-z]{0,12})\s*")

# Managers, etcd records and the scheduler's arrays hold amounts as signed 64-bit integers.
_AMOUNT_MAX = 2**63 - 1

_Suggest = Callable[[str], str]

_BINARY_WORDS = {"Ki": "kibibytes", "Mi": "mebibytes", "Gi": "gibibytes", "Ti": "tebibytes"}


class QuantityError(ValueError):
    """The text is no quantity of its kind; the message says what was probably meant."""


def parse_cpu_millis(text: str | float) -> int:
    """Thousandths of a processor core, rounded up: `"0.5"` and `"500m"` are 500, `2` is 2000.

    Raises QuantityError: not a quantity, negative, or too large for 64 bits.
    """
    amount = _parse(text, suggest=_suggest_cpu)
    return _rounded_up(amount * 1000, text)


def parse_memory_bytes(text: str | float) -> int:
    """Bytes, rounded up: `"128Mi"` is 134217728, `"1G"` is 10**9.

    Raises QuantityError: not a quantity, negative, too large for 64 bits, or thousandths of a byte
    (`"128m"`: Kubernetes takes that as one byte, but nobody ever meant it).
    """
    amount = _parse(text, suggest=_suggest_memory)
    if amount.denominator != 1 and isinstance(text, str) and text[-1] in "num":
        number = text[:-1]
        raise QuantityError(
            f"{quote(text)} is a fraction of a byte: m means thousandths. Did you mean {number}Mi (mebibytes) or {number}M?"
        )
    return _rounded_up(amount, text)


def format_cpu(millis: int) -> str:
    """The canonical text: `2` for 2000, `500m` for 500."""
    return str(millis // 1000) if millis % 1000 == 0 else f"{millis}m"


def format_memory(memory_bytes: int) -> str:
    """The shortest exact text: `128Mi`, `512M`, `1Gi`. `parse_memory_bytes` gives the same number back."""
    texts = [str(memory_bytes)]
    for suffix, factor in (*_BINARY.items(), *((s, int(f)) for s, f in _DECIMAL.items() if f > 1)):
        if memory_bytes and memory_bytes % factor == 0:
            texts.append(f"{memory_bytes // factor}{suffix}")
    # min() keeps the first of equals, and binary suffixes come before decimal ones.
    return min(texts, key=len)


def format_memory_rounded(memory_bytes: int) -> str:
    """For tables of measured use, as `kubectl top` shows it: `34Mi`, rounded up; below one mebibyte in `Ki`."""
    suffix = "Mi" if memory_bytes >= _BINARY["Mi"] else "Ki"
    return f"{-(-memory_bytes // _BINARY[suffix])}{suffix}"


def _parse(text: str | float, *, suggest: _Suggest) -> Fraction:
    if isinstance(text, bool):
        raise QuantityError(f"{str(text).lower()} is not a quantity")
    written = text if isinstance(text, str) else repr(text)
    match = _QUANTITY.fullmatch(written)
    if match is None:
        raise QuantityError(f"{quote(written)} is not a quantity.{suggest(written)}")
    amount = Fraction(match["number"].removesuffix("."))
    if match["exponent"]:
        amount *= Fraction(10) ** int(match["exponent"])
    else:
        amount *= _SUFFIXES[match["suffix"] or ""]
    if match["sign"] == "-" and amount:
        raise QuantityError(f"{quote(written)} is negative")
    return amount


def _rounded_up(amount: Fraction, text: str | float) -> int:
    whole = -(-amount.numerator // amount.denominator)
    if whole > _AMOUNT_MAX:
        raise QuantityError(f"{quote(str(text))} is larger than any cluster")
    return whole


def _suggest_memory(text: str) -> str:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None:
        return ' Write it like "512Mi" or "1Gi".'
    number, unit = match[1].replace(",", "."), match[2].lower()
    if unit in ("", "b", "byte", "bytes"):
        return f" Did you mean {number} (bytes)?"
    letter = unit[0].upper()
    if f"{letter}i" not in _BINARY_WORDS:
        return ' Write it like "512Mi" or "1Gi".'
    binary, decimal = f"{letter}i", "k" if letter == "K" else letter
    if unit[1:2] == "i":
        return f" Did you mean {number}{binary} ({_BINARY_WORDS[binary]})?"
    return f" Did you mean {number}{binary} ({_BINARY_WORDS[binary]}) or {number}{decimal}?"


def _suggest_cpu(text: str) -> str:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None:
        return ' Write it like "500m" or "0.5".'
    number, unit = match[1].replace(",", "."), match[2].lower()
    if unit in ("m", "milli", "millis", "mcpu", "millicores", "millicpu"):
        return f" Did you mean {number}m (thousandths of a core)?"
    if unit in ("", "c", "core", "cores", "cpu", "cpus", "vcpu", "vcpus"):
        return f" Did you mean {number} (cores)?"
    return ' Write it like "500m" or "0.5".'
