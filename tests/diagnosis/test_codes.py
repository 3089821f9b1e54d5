"""The guide explains every code that any check can report, and no other."""

import ast
from pathlib import Path

import pytest

import ftkit
from ftkit.diagnosis import CODES, explain
from ftkit.diagnosis.codes import PASSES
from ftkit.errors import SettingsError

ROOMS = ("chat", "diagnosis")


def reported() -> dict[str, set[str]]:
    """Codes in the source, with the severities that they are written with."""
    found: dict[str, set[str]] = {}
    for room in ROOMS:
        for path in (Path(ftkit.__file__).parent / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                    code, severity = node.args[:2]
                    names = {c.value for c in ast.walk(severity) if isinstance(c, ast.Constant)}
                    if isinstance(code, ast.Constant):
                        found.setdefault(str(code.value), set()).update(map(str, names))
    return found | {"header-trained": {"warning"}, "after-trained": {"info"}}


def test_every_code_is_explained_and_every_explanation_is_used() -> None:
    codes = reported()
    failing = {code for code, severities in codes.items() if severities != {"ok"}}
    passing = {code for code, severities in codes.items() if severities == {"ok"}}
    assert failing == set(CODES)
    assert passing == set(PASSES)


@pytest.mark.parametrize("code", CODES)
def test_an_entry_is_complete(code: str) -> None:
    entry = explain(code)
    assert entry.title
    assert all(len(text) > 5 for text in (entry.what, entry.why, entry.fix))
    assert "**" not in entry.what + entry.why + entry.fix
    assert str(entry).startswith(f"{code}: ")


def test_a_passed_check_is_explained_by_its_fault() -> None:
    assert explain("score-head-saved").code == "score-head-not-saved"


def test_an_unknown_code_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"no code 'pad-eos'; did you mean .*pad-is-eos"):
        explain("pad-eos")
