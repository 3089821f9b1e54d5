"""The chat inspector without a browser: its state, its picture, what it leaves in a notebook."""

import re

import pytest
from ipywidgets import Widget
from ipywidgets.widgets.widget import _instances
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import ftkit
from ftkit import chat as chats
from ftkit.errors import ChatError
from ftkit.widgets import ChatInspector
from ftkit.widgets import chat_inspector as module

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hot?"},
    {"role": "assistant", "content": "Yes <b>&</b>."},
]
VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={ch: i for i, ch in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = CHATML
    return fast


@pytest.fixture
def inspector(tokenizer):
    return ChatInspector(tokenizer, MESSAGES)


@pytest.fixture
def live():
    ftkit.display("widget")
    yield
    ftkit.display("auto")
    Widget.close_all()


@pytest.fixture
def model(monkeypatch):
    """A model whose every forward pass is counted."""
    calls = []

    def score(_model, chat):
        calls.append(chat)
        return chat.with_logprobs([None] + [-2.0] * (len(chat.kept) - 1))

    monkeypatch.setattr(chats, "score", score)
    return calls


def html(inspector):
    return inspector._view["html"]


def test_the_picture_is_that_of_annotate(inspector, tokenizer):
    expected = chats.annotate(tokenizer, MESSAGES)
    assert inspector.chat == expected
    assert inspector._view["said"] == (
        f"{len(expected.trained)} of {len(expected.kept)} tokens trained"
    )
    assert list(inspector.to_pandas()["id"]) == expected.input_ids


def test_mask_system_and_generation_prompt_redraw(inspector):
    before = inspector.chat
    inspector.mask = "full"
    assert len(inspector.chat.trained) == len(before.tokens)
    inspector.system = False
    assert {t.role for t in inspector.chat.tokens} == {"user", "assistant"}
    inspector.generation_prompt = True
    assert inspector.chat.tokens[-1].part == "generation_prompt"
    assert "generation prompt" in html(inspector)


def test_new_messages_redraw_and_text_is_escaped(inspector):
    assert "<b>&</b>" not in html(inspector)
    inspector.messages = [*MESSAGES, {"role": "user", "content": "<img src=x onerror=alert(1)>"}]
    assert "<img" not in html(inspector)
    assert "turn 3 · user" in html(inspector)


def test_the_messages_given_stay_untouched(tokenizer):
    mine = [dict(m) for m in MESSAGES]
    inspector = ChatInspector(tokenizer, mine)
    mine[1]["content"] = "changed outside"
    assert inspector.messages == MESSAGES


def test_a_second_template_stands_beside_the_first(inspector):
    inspector.compare = "qwen3"
    assert re.findall(r"<h3>(.*?)</h3>", html(inspector)) == ["template: own", "template: qwen3"]
    assert "The same conversation takes" in html(inspector)


def test_every_family_of_trl_can_be_picked(inspector):
    assert inspector._choices["templates"] == list(chats.templates.names())


def test_completion_mask_takes_its_response_template(inspector):
    inspector.mask = "completion"
    inspector.response_template = "<|im_start|>assistant\n"
    trained = "".join(t.text for t in inspector.chat.trained)
    assert trained.startswith("Yes <b>&</b>.<|im_end|>")


def test_a_conversation_that_cannot_be_rendered_is_a_finding_and_no_stale_strip(inspector):
    inspector.messages = [{"role": "narrator", "content": "x"}]
    assert "cannot render" in html(inspector)
    assert "message 0" in html(inspector)
    assert "ft-strip" not in html(inspector)
    with pytest.raises(ChatError, match="message 0"):
        _ = inspector.chat
    inspector.messages = MESSAGES
    assert "ft-strip" in html(inspector)


def test_one_broken_template_of_two_leaves_the_other_named(inspector):
    inspector.compare = "no-such-template"
    assert "no chat template" in html(inspector)
    assert re.findall(r"<h3>(.*?)</h3>", html(inspector)) == ["template: own"]


@pytest.mark.parametrize(
    "messages", [[], [None], [{}], ["text"], [{"role": "user", "content": None}]]
)
def test_malformed_messages_never_raise_while_drawing(inspector, messages):
    inspector.system = False
    inspector.messages = messages
    assert "cannot render" in html(inspector)


def test_an_unexpected_error_is_shown_with_its_type(inspector, monkeypatch):
    def explode(*_, **__):
        raise RuntimeError("boom <i>")

    monkeypatch.setattr(chats, "annotate", explode)
    inspector.mask = "full"
    assert "RuntimeError: boom &lt;i&gt;" in html(inspector)


def test_losses_wait_until_they_are_asked_for(tokenizer, model):
    inspector = ChatInspector(tokenizer, MESSAGES, object())
    inspector.mask = "full"
    assert not model, "typing must not wait for a forward pass"
    assert inspector._view["unscored"]
    inspector._edit += 1
    inspector._on_request(inspector, {"score": inspector._edit - 1}, [])
    assert not model, "an outdated request is ignored"
    inspector._on_request(inspector, {"score": inspector._edit}, [])
    assert len(model) == 1
    assert "2.00<small>loss on trained" in html(inspector)
    assert not inspector._view["unscored"]


def test_losses_are_computed_once_and_shown_in_every_form(tokenizer, model):
    inspector = ChatInspector(tokenizer, MESSAGES, object())
    assert inspector.chat.loss() == 2.0
    assert "2.00<small>loss on trained" in inspector.to_html()
    assert inspector.to_pandas()["loss"].iloc[-1] == 2.0
    assert len(model) == 1


def test_a_model_that_fails_leaves_the_tokens_and_says_why(tokenizer, monkeypatch):
    def explode(*_):
        raise ValueError("id 9 is outside")

    monkeypatch.setattr(chats, "score", explode)
    inspector = ChatInspector(tokenizer, MESSAGES, object())
    shown = inspector.to_html()
    assert "id 9 is outside" in shown
    assert "ft-strip" in shown


def test_the_browser_knows_which_edit_a_picture_answers(inspector):
    inspector.set_state({"messages": MESSAGES[1:], "_edit": 7})
    assert inspector._view["edit"] == 7
    assert "Be brief" not in inspector.chat.text


def test_static_mode_leaves_no_widget_behind(tokenizer, monkeypatch):
    monkeypatch.setenv("FTKIT_STATIC", "1")
    before = dict(_instances)
    inspector = ChatInspector(tokenizer, MESSAGES)
    bundle = inspector._repr_mimebundle_()
    assert sorted(bundle) == ["text/html", "text/plain"]
    assert "<script" not in bundle["text/html"]
    assert _instances == before


@pytest.mark.usefixtures("live")
def test_live_mode_brings_the_view_and_both_fallbacks(tokenizer):
    data, _ = ChatInspector(tokenizer, MESSAGES)._repr_mimebundle_()
    assert sorted(data) == sorted([VIEW_MIME, "text/html", "text/plain"])
    assert "tokens trained" in data["text/plain"]


def test_an_inspector_made_in_static_mode_opens_when_shown_live(inspector):
    assert inspector.comm is None
    ftkit.display("widget")
    try:
        assert VIEW_MIME in inspector._repr_mimebundle_()[0]
    finally:
        ftkit.display("auto")
        inspector.close()


def test_the_script_uses_only_traits_that_exist_and_one_trusted_html():
    script = (module._HERE / "chat_inspector.js").read_text(encoding="utf-8")
    used = set(re.findall(r'model\.get\("(\w+)"\)', script))
    assert used
    assert used <= set(ChatInspector.class_traits(sync=True))
    assert re.findall(r"\w+\.innerHTML = (\w+);", script) == ["html"]
    assert not re.search(r"insertAdjacentHTML|outerHTML|https?:|import ", script)
