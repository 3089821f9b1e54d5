"""Messages → rendered text → tokens, each with span, role, label and the reason for its label."""

from typing import TYPE_CHECKING

from ftkit.late import late

_HOMES = {
    "AnnotatedBatch": "annotated",
    "AnnotatedTokens": "annotated",
    "IGNORE_INDEX": "annotated",
    "TemplateAudit": "audit",
    "Token": "annotated",
    "annotate": "annotate",
    "annotate_batch": "batch",
    "audit": "audit",
    "prepare": "prepare",
    "score": "scoring",
    "special_tokens": "checks",
    "truncation": "prepare",
}

__all__ = [
    "IGNORE_INDEX",
    "AnnotatedBatch",
    "AnnotatedTokens",
    "TemplateAudit",
    "Token",
    "annotate",
    "annotate_batch",
    "audit",
    "prepare",
    "score",
    "special_tokens",
    "templates",
    "truncation",
]

if TYPE_CHECKING:
    from ftkit.chat import templates
    from ftkit.chat.annotate import annotate
    from ftkit.chat.annotated import IGNORE_INDEX, AnnotatedBatch, AnnotatedTokens, Token
    from ftkit.chat.audit import TemplateAudit, audit
    from ftkit.chat.batch import annotate_batch
    from ftkit.chat.checks import special_tokens
    from ftkit.chat.prepare import prepare, truncation
    from ftkit.chat.scoring import score

late(__name__, _HOMES)
