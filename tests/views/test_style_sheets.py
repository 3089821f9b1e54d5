"""All views may stand on one page, so no two of their style sheets may style one class."""

import re
from importlib.resources import files
from itertools import combinations

SHEETS = {
    f.name: set(re.findall(r"^\.ftkit (?:\.ft-card )?\.(ft-[a-z]+)[ {:>.]", f.read_text(), re.M))
    for f in files("ftkit.views").iterdir()
    if f.name.endswith(".css")
}


def test_no_class_is_styled_by_two_sheets() -> None:
    own = {name: classes - SHEETS["style.css"] for name, classes in SHEETS.items()}
    shared = {(a, b): own[a] & own[b] for a, b in combinations(own, 2) if own[a] & own[b]}
    assert shared == {}
    assert len(SHEETS["curves.css"]) > 5
