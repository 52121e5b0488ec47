"""Numbers as text: a true minus sign, intervals, and as many decimals as a reader needs."""

MINUS = "\N{MINUS SIGN}"


def formatted(value: float, spec: str) -> str:
    """A number in Python's format `spec`, with a true minus sign."""
    return format(value, spec).replace("-", MINUS)


def decimal(value: float, decimals: int) -> str:
    """A number with a fixed number of decimals; zero has no sign."""
    return formatted(round(value, decimals) + 0.0, f".{decimals}f")


def signed(value: float) -> str:
    """A number with one decimal and its sign; zero has none."""
    text = formatted(value, "+.1f")
    return text[1:] if float(f"{value:.1f}") == 0 else text


def numbers(*values: float) -> list[str]:
    """An estimate and the ends of its interval, with one decimal if any is 10 or more, otherwise with two."""
    decimals = 1 if max((abs(value) for value in values if value == value), default=0) >= 10 else 2
    return [decimal(value, decimals) for value in values]


def with_interval(value: float, low: float, high: float, spec: str) -> str:
    """An estimate and its interval, as in "0.93 (0.90 to 0.96)"; the estimate alone if the interval is missing."""
    interval = f" ({formatted(low, spec)} to {formatted(high, spec)})" if low == low else ""
    return formatted(value, spec) + interval


def p_value(p: float) -> str:
    """A p value with its relation, as in "= 0.004" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.9995 else "= 1"


def readable(name: str) -> str:
    """The name of a condition, set or question in words."""
    return name.replace("_", " ")


def listed(items: list[str], comma: str = ", ") -> str:
    """The items as running text, with "and" before the last."""
    return " and ".join([comma.join(items[:-1]), items[-1]] if len(items) > 1 else items)
