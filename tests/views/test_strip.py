"""The token strip: exact text, visible marks, honest counts, nothing unescaped."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.chat.annotated import IGNORE_INDEX, AnnotatedBatch, AnnotatedTokens, Token
from ftkit.findings import Finding
from ftkit.views import to_html
from ftkit.views.findings import chips
from ftkit.views.strip import describe, strip, view
from ftkit.views.style import DARK, LIGHT, card, css, palette_css
from ftkit.views.text import token_text

HOSTILE = (
    "</script>",
    "<img src=x onerror=alert(1)>",
    "<|im_end|>",
    "\"&'",
    " שלום",
    " مرحبا",
    "e\u0301",
    "\u0301",
    "\u0007",
    "a\r\n",
    "\t  \n\n",
    " rlo\u202eabc",
    "👩\u200d🚀",
    "zw\u200bx\u00a0",
)


class Page(HTMLParser):
    """Collects the tags, and of each token its attributes and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.tokens, self.blocks, self._open = [], [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        classes = (attrs.get("class") or "").split()
        self.tags.append(tag)
        if "b" in classes:
            self.blocks.append(attrs["data-n"])
        if attrs.get("role") == "listitem":
            self.tokens.append({**attrs, "classes": classes, "text": ""})
            self._open = 1
        elif self._open:
            self._open += 1

    def handle_endtag(self, tag):
        self._open = max(0, self._open - 1)

    def handle_data(self, data):
        if self._open:
            self.tokens[-1]["text"] += data


def chat(pieces, **options):
    """Build a conversation from ``(text, role, turn, part, trained[, changes])`` rows."""
    tokens, at = [], 0
    for i, (text, role, turn, part, trained, *changes) in enumerate(pieces):
        label = 100 + i if trained else IGNORE_INDEX
        span = (at, at + len(text))
        special = text.startswith("<|")
        token = Token(i, 100 + i, text, span, role, turn, part, special, label, "a reason")
        tokens.append(replace(token, **changes[0]) if changes else token)
        at += len(text)
    text = "".join(t.text for t in tokens)
    return AnnotatedTokens(text, tuple(tokens), options.pop("mask", "assistant"), **options)


def dialogue(*, stop=True, **options):
    """A question and an answer with BOS, headers and stop tokens: 5 trained at most."""
    rows = [("<|bos|>", None, None, "template", False)]
    for turn, (role, words) in enumerate((("user", ["Hi", "?"]), ("assistant", ["Oh", " hello"]))):
        answer = role == "assistant"
        rows += [("<|start|>", role, turn, "header", False), (role, role, turn, "header", False)]
        rows += [(word, role, turn, "content", answer) for word in words]
        rows += [
            ("<|end|>", role, turn, "stop", answer and stop),
            ("\n", role, turn, "after", False),
        ]
    return chat(rows, **options)


def scored(conversation):
    kept = len(conversation.kept)
    return conversation.with_logprobs([None, *[-0.5 * i for i in range(1, kept)]])


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_comes_back_exactly_and_adds_no_element(piece):
    page = Page(strip(chat([(piece, "user", 0, "content", False)])))
    assert [t["text"] for t in page.tokens] == [piece]
    assert not {"img", "script"} & set(page.tags)


@given(st.lists(st.text(max_size=6), max_size=8))
def test_token_texts_concatenate_to_the_rendered_text(texts):
    conversation = chat([(text, "user", 0, "content", False) for text in texts])
    html = strip(conversation)
    assert "".join(t["text"] for t in Page(html).tokens) == conversation.text.replace(
        "\0", "\ufffd"
    )
    assert "\r" not in html, "HTML would turn a carriage return into a newline"


def test_characters_that_the_eye_would_miss_are_named():
    html, _ = token_text("a\u200bb\u0000\u202e")
    assert re.findall(r'data-c="([^"]+)"', html) == ["ZWSP", "U+0000", "U+202E"]


def test_lone_surrogates_become_storable():
    html, _ = token_text("\ud83d")
    html.encode("utf-8")
    assert "U+D83D" in html


@pytest.mark.parametrize(
    ("text", "classes"), [(" a", "l"), ("a", ""), ("\n", "w"), (" ", "w"), (" שלום", "r")]
)
def test_whitespace_and_right_to_left_tokens_get_their_class(text, classes):
    assert token_text(text)[1] == classes


def test_a_joiner_inside_an_emoji_stays_unmarked():
    assert "data-c" not in token_text("👩\u200d🚀")[0]


def test_trained_masked_special_and_header_tokens_carry_their_marks():
    tokens = {t["text"]: t["classes"] for t in Page(strip(dialogue())).tokens}
    assert "on" in tokens[" hello"]
    assert "on" not in tokens["Hi"]
    assert "h" in tokens["assistant"]
    assert "k" in tokens["<|bos|>"]
    assert "h" not in tokens["<|start|>"]


def test_the_label_of_a_token_says_everything_known_of_it():
    answer = scored(dialogue()).tokens[9]
    assert describe(answer) == (
        "#9 “Oh” · id 109 · span 49–51 · assistant, turn 1, content · trained (label 109): "
        "a reason · logprob −4.50 · loss 4.50 nats · p = 1.11 %"
    )
    assert "masked (label −100)" in describe(dialogue().tokens[3])


def test_blocks_count_each_turn_and_bos_joins_the_first():
    assert Page(strip(dialogue())).blocks == [
        "turn 0 · user · 0/6 trained",
        "turn 1 · assistant · 3/6 trained",
    ]


def test_a_character_over_several_tokens_is_shown_once_with_numbered_parts():
    pieces = [
        ("办" if k == 1 else "", "user", 0, "content", False, {"piece": (k, 3)}) for k in (1, 2, 3)
    ]
    tokens = Page(strip(chat(pieces))).tokens
    assert [t["text"] for t in tokens] == ["办", "", ""]
    assert [t["data-p"] for t in tokens] == ["1⁄3", "2⁄3", "3⁄3"]
    assert "part of 办" in tokens[2]["aria-label"]


def test_truncation_is_one_visible_line_at_the_first_cut_token():
    whole = dialogue()
    tokens = [replace(t, cut=t.index >= 5, label=IGNORE_INDEX) for t in whole.tokens]
    html = strip(replace(whole, tokens=tuple(tokens), max_length=5))
    assert html.count('class="cl"') == 1
    before, after = html.split('class="cl"')
    assert "cut here: max_length=5" in after
    assert [len(Page(part).tokens) for part in (before, html)] == [5, len(tokens)]
    assert all("ct" in t["classes"] for t in Page(html).tokens[5:])


def test_counts_leave_padding_out_of_the_total():
    padded = dialogue().tokens + tuple(
        Token(13 + i, 0, "", (54, 54), None, None, "pad", True, IGNORE_INDEX, "padding")
        for i in range(4)
    )
    html = view([replace(dialogue(), tokens=padded)])
    assert "3<small>/ 13 tokens trained (23 %)" in html
    assert "4<small>padding" in html
    assert "padding · 4" in Page(html).blocks


def test_a_conversation_without_trained_token_says_so():
    nothing = replace(
        dialogue(), tokens=tuple(replace(t, label=IGNORE_INDEX) for t in dialogue().tokens)
    )
    assert "No token carries loss" in to_html(nothing)


def test_losses_bring_bars_means_and_a_scale_and_only_then():
    plain, html = view([dialogue()]), view([scored(dialogue())])
    assert "ft-loss" not in plain
    assert "--l" not in plain
    bars = [t.get("style") for t in Page(html).tokens]
    assert bars[:2] == [None, "--l:0.08"], "the first token has no loss"
    assert "5.00<small>loss on trained" in html
    assert "nats" in html


def test_bars_stop_at_the_cap():
    hot = dialogue().with_logprobs([None, *[-40.0] * 12])
    assert {t.get("style") for t in Page(strip(hot)).tokens[1:]} == {"--l:1.00"}


def test_long_strips_have_no_tab_stop_at_every_token():
    rows = [("a", "user", 0, "content", False)] * 301
    assert {t["tabindex"] for t in Page(strip(chat(rows))).tokens} == {"-1"}
    assert {t["tabindex"] for t in Page(strip(chat(rows[:9]))).tokens} == {"0"}


def test_a_batch_shows_each_row_with_its_counts():
    found = Finding("padding", "info", "42 % padding.")
    html = to_html(AnnotatedBatch((dialogue(), dialogue(stop=False)), (found,)))
    assert re.findall(r"<h3>(.*?)</h3>", html) == ["row 0", "row 1"]
    assert "5/26 tokens trained in 2 rows" in html
    assert "42 % padding." in html


def test_records_show_themselves_as_one_self_contained_card():
    bundle = dialogue()._repr_mimebundle_()
    assert bundle["text/html"].count("<style>") == 1
    assert not re.search(r"<script|<link|url\(|https?:", bundle["text/html"])
    assert bundle["text/plain"].startswith("3/13 tokens trained")


def test_findings_are_chips_gravest_first_with_message_place_and_fix():
    html = chips(
        [
            Finding("fine", "ok", "Good."),
            Finding("pad-is-eos", "warning", "a < b", fix="c & d", where="row <3>"),
            Finding("broken", "error", "No."),
        ]
    )
    assert re.findall(r'ft-chip (\w+)"', html) == ["error", "warning", "ok"]
    for text in ("a &lt; b", "Fix: c &amp; d", "row &lt;3&gt;", "pad is eos"):
        assert text in html


def test_many_passed_checks_share_one_chip():
    html = chips([Finding(f"check-{i}", "ok", f"Good {i}.") for i in range(6)])
    assert html.count("<details") == 1
    assert "6 checks passed" in html
    assert "Good 5." in html


def test_card_escapes_its_words():
    html = card("<b>", "<i>body</i>", say="a < b")
    assert "&lt;b&gt;" in html
    assert "<i>body</i>" in html
    assert "a &lt; b" in html


def test_the_host_theme_wins_over_the_operating_system():
    rules = palette_css()
    assert rules.index("prefers-color-scheme:dark") < rules.index('data-jp-theme-light="true"')
    assert css("strip").count("<style>") == 1


def _luminance(colour):
    channels = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _mixed(a, b, share):
    one, two = ([int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (a, b))
    return [share * x + (1 - share) * y for x, y in zip(one, two, strict=True)]


def _contrast(a, b):
    dark, light = sorted((_luminance(a), _luminance(b)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("role", ["user", "sys", "asst", "tool"])
def test_masked_and_trained_tokens_stay_readable(palette, role):
    hue, soft = palette[role], palette["soft"]
    faded = _mixed(hue, palette["mut"], 0.55)
    assert _contrast(faded, _mixed(soft, soft, 1)) >= 4.5
    fill = _mixed(hue, soft, 0.20)
    assert _contrast(_mixed(palette["fg"], soft, 1), fill) >= 7
