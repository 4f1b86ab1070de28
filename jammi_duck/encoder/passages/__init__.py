"""Long texts are cut into passages, which a model reads whole.

`Cutter(encoder, resolve_rule(encoder, ...)).cut(text)` says where. How: `borders` finds where a text may be cut, and
how good each place is; `joining` chooses among them; `cutting` sees that no passage is longer than the model reads.
"""

from jammi_duck.encoder.passages.cutter import Cuts, Cutter, embedded_text
from jammi_duck.encoder.passages.rule import (
    BORDERS,
    CUTTER,
    DEFAULT_BY,
    DEFAULT_OVERLAP,
    DEFAULT_TOKENS,
    resolve_rule,
)

__all__ = [
    "BORDERS",
    "CUTTER",
    "DEFAULT_BY",
    "DEFAULT_OVERLAP",
    "DEFAULT_TOKENS",
    "Cuts",
    "Cutter",
    "embedded_text",
    "resolve_rule",
]
