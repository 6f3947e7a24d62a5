"""Text with a sum in it → the sum and its value, exactly, without `eval`.

    sum     = product { ("+" | "-") product }
    product = power { ("*" | "/") power }
    power   = ["-" | "+"] power | atom ["^" power]
    atom    = number | "(" sum ")" | "sqrt" atom

Values are fractions. What would be large is refused by its size before it is computed.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

__all__ = ["find", "solve"]

_I = re.IGNORECASE
_WORDS = [
    (r"(?<=\d),(?=\d{3}\b)", ""),
    (r"%\s*of\b|\bpercent\s+of\b", "/100*"),
    (r"\bplus\b", "+"),
    (r"\bminus\b|−", "-"),
    (r"\b(?:times|multiplied by)\b|[×·]|(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"\b(?:divided by|over)\b|÷", "/"),
    (r"\bsquared\b", "^2"),
    (r"\bcubed\b", "^3"),
    (r"\*\*|\bto the power of\b", "^"),
    (r"\b(?:the )?square root of\b|√", " sqrt "),
]
_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d+/\d+/\d+")
_SUM = re.compile(r"(?:sqrt|[\d.()+\-*/^\s]){3,200}")
_ASKED = re.compile(r"\b(what|how much|calculate|compute|evaluate|solve|work out|sum)\b|=", _I)
_OPERATION = re.compile(r"\d.*[+\-*/^].*\d|sqrt.*\d")
_MARK = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|sqrt|[()+\-*/^])")
_MOST_BITS = 2048


def find(text: str) -> str | None:
    """The first sum that `text` asks for, written with `+ - * / ^ ( )`; None if there is none."""
    plain = _DATE.sub(" , ", text.strip())
    for pattern, mark in _WORDS:
        plain = re.sub(pattern, mark, plain, flags=_I)
    asked = _ASKED.search(text) is not None
    for match in _SUM.finditer(plain):
        found = match[0].strip().rstrip(".-+*/^ ")
        bare = len(found) > len(plain) - 3  # the text is a sum and nothing else
        if (asked or bare) and _OPERATION.search(found):
            return re.sub(r"\s+", " ", found)
    return None


def solve(expression: str) -> str | None:
    """A sum with its value, as `2 + 2 = 4`; None if it is no sum."""
    shown = re.sub(r"(?<=[\d)])\s*([+\-*/])\s*", r" \1 ", re.sub(r"\s*\^\s*", "^", expression))
    try:
        value = _Reader(expression).read()
    except ZeroDivisionError:
        return f"{shown} is undefined: it divides by zero."
    except OverflowError:
        return f"{shown} is too large for me."
    except (ValueError, RecursionError):
        return None
    if value.denominator == 1:
        return f"{shown} = {value}"
    decimal = f"{float(value):.10g}"
    return f"{shown} {'=' if Fraction(decimal) == value else '≈'} {decimal}"


class _Reader:
    """Reads one expression from left to right."""

    def __init__(self, expression: str) -> None:
        self._marks = _MARK.findall(expression)
        if "".join(self._marks) != re.sub(r"\s", "", expression):
            raise ValueError(expression)
        self._marks.reverse()

    def read(self) -> Fraction:
        value = self._sum()
        if self._marks:
            raise ValueError(self._marks[-1])
        return value

    def _next(self, *marks: str) -> str | None:
        return self._marks.pop() if self._marks and self._marks[-1] in marks else None

    def _sum(self) -> Fraction:
        value = self._product()
        while mark := self._next("+", "-"):
            other = self._product()
            value = value + other if mark == "+" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._power()
        while mark := self._next("*", "/"):
            other = self._power()
            value = _bounded(value * other if mark == "*" else value / other)
        return value

    def _power(self) -> Fraction:
        if sign := self._next("-", "+"):
            return -self._power() if sign == "-" else self._power()
        base = self._atom()
        if not self._next("^"):
            return base
        exponent = self._power()
        if exponent.denominator != 1:
            return Fraction(_real(float(base) ** float(exponent)))
        size = max(abs(base.numerator), base.denominator).bit_length()
        if size * abs(exponent) > _MOST_BITS:
            raise OverflowError
        return Fraction(base) ** int(exponent)

    def _atom(self) -> Fraction:
        if self._next("sqrt"):
            value = self._atom()
            whole = math.isqrt(value.numerator) if value >= 0 and value.denominator == 1 else 0
            return Fraction(whole if whole**2 == value else _real(float(value) ** 0.5))
        if self._next("("):
            value = self._sum()
            if not self._next(")"):
                raise ValueError("(")
            return value
        if not self._marks:
            raise ValueError("the end")
        return _bounded(Fraction(self._marks.pop()))


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator).bit_length() > _MOST_BITS:
        raise OverflowError
    return value


def _real(value: complex) -> float:
    if isinstance(value, complex):
        raise ValueError(value)
    return value
