"""The templates that ship with this package, with figures worded alike in all of them."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from taylor_ops.presentation.sentences import band_in_words, device_in_words, equal_in_words
from taylor_ops.presentation.wording import count, figure, fixed, percent, plain
from taylor_ops.storage.files import size


def environment(autoescape: bool) -> Environment:
    """The templates of this package, with figures worded alike in all of them; an unknown name is an error."""
    templates = Environment(
        loader=PackageLoader("taylor_ops"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "band": band_in_words,
        "count": count,
        "device": device_in_words,
        "equal_of": equal_in_words,
        "figure": figure,
        "fixed": fixed,
        "percent": percent,
        "plain": plain,
        "size": size,
    }
    return templates
