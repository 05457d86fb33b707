"""Numbers as a model card shows them; what is not known is a dash."""

from __future__ import annotations

NONE = "-"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent.

    >>> percent(0.7241), percent(0.99954, 2), percent(None)
    ('72.4 %', '99.95 %', '-')
    """
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def count(number: int | None) -> str:
    """A whole number, in thousands.

    >>> count(708992)
    '708,992'
    """
    return NONE if number is None else f"{number:,}"


def size(number: int | None) -> str:
    """Bytes, in units of a thousand.

    >>> size(2_841_328), size(512)
    ('2.8 MB', '512 B')
    """
    if number is None:
        return NONE
    amount, units = float(number), ("B", "kB", "MB", "GB", "TB")
    for unit in units:
        if amount < 999.95 or unit == units[-1]:
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def milliseconds(amount: float | None) -> str:
    """A time, to three digits.

    >>> milliseconds(1.23456), milliseconds(1234.5)
    ('1.23 ms', '1,234 ms')
    """
    return NONE if amount is None else f"{digits(amount)} ms"


def digits(amount: float | None) -> str:
    """A number to three digits, without an exponent where it is large.

    >>> digits(1234.5), digits(0.012345), digits(12.345)
    ('1,234', '0.0123', '12.3')
    """
    if amount is None:
        return NONE
    return f"{amount:,.0f}" if abs(amount) >= 100 else f"{amount:.3g}"


def share(amount: float | None, places: int = 3) -> str:
    """A probability or an error, to so many places.

    >>> share(0.81234)
    '0.812'
    """
    return NONE if amount is None else f"{amount:.{places}f}"


def dollars(amount: float | None) -> str:
    """US dollars; small amounts keep two digits that say something.

    >>> dollars(12.345), dollars(0.00123), dollars(0.0)
    ('12.35 USD', '0.0012 USD', '0 USD')
    """
    if amount is None:
        return NONE
    return f"{amount:.2f} USD" if amount >= 1 else f"{amount:.2g} USD"
