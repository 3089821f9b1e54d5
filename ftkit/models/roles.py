"""Four roles on one base in memory: policy (actor and critic), reference, reward model.

| role | adapter | head |
|---|---|---|
| actor | `policy` | the base's LM head |
| critic | `policy` | value head |
| reference | `reference`, frozen, or none | the base's LM head |
| reward model | `reward` | score head |

PPO written naively keeps four models. Here each role is the same quantized base read through
another small adapter; switching is a context manager. Left out on purpose: the PPO loop, and a
critic with an adapter of its own (TRL's last PPO had a whole second backbone for it).
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from ftkit.errors import SettingsError
from ftkit.models import packed_rows, roles_io
from ftkit.models.generation import Completions, sample
from ftkit.models.heads import (
    LogitHead,
    last_real,
    score_head,
    value_head,
)
from ftkit.models.lean_lora import lean
from ftkit.models.loading import Loaded
from ftkit.models.lora import (
    LoraAdapter,
    adapter_parameters,
    add,
    attach,
    cast,
    read_adapter,
    strip_adapters,
    switched,
)
from ftkit.models.remade import without_gates
from ftkit.models.responses import predicting, real_tokens, response_columns, spread
from ftkit.models.roles_io import SavedRoles
from ftkit.models.shared_base import (
    BaseFacts,
    Start,
    causal_model,
    mark_of,
    require_base,
    require_own_logits,
    seeded,
    starting_adapter,
)
from ftkit.models.token_statistics import token_statistics
from ftkit.models.unpacking import copies_mb, folded, unpacked

Role = Literal["policy", "reference", "reward"]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, slots=True)
class TokenOutputs:
    """What one pass says about the tokens of each response; 0 at padding.

    Attributes:
        logprobs: ``(batch, response)`` log-probability of each token, in nats.
        values: ``(batch, response)`` the critic's estimate before each token, or None.
        entropy: ``(batch, response)`` of the distribution of each token, in nats, or None.
        mask: Bool ``(batch, response)``, true at response tokens.
    """

    logprobs: Tensor
    values: Tensor | None
    entropy: Tensor | None
    mask: Tensor


class Roles:
    """Policy, reference and reward model as adapters on one base.

    Takes over the base that it is given: adapters found on it are read, removed and put back
    under the names of the roles, and a trainer built on it before must not train on. The model
    is left in eval mode: dropout would make the ratio of PPO's first update differ from 1.

    Attributes:
        model: The `PeftModel`; its active adapter is ``"policy"`` outside the context managers.
        value_head: ``(n, hidden) -> (n, 1)``, float32, zero at the start.
        score_head: ``(n, hidden) -> (n, 1)``, float32, or None before `add_reward`.
        facts: What the base is: device, stop and pad ids, sizes.
    """

    def __init__(
        self,
        base: Loaded | PeftModel,
        *,
        start: Start = "carried",
        lora_r: int = 16,
        lora_alpha: int = 32,
        target_modules: tuple[str, ...] | Literal["all-linear"] = ATTENTION,
        reference: Literal["copy", "off"] = "copy",
        seed: int = 0,
    ) -> None:
        """Build the policy and its reference; the reward model comes with `add_reward`.

        Args:
            base: From `ftkit.load`, or the `PeftModel` of an SFT trainer (``trainer.model``).
            start: Where the policy starts. ``"carried"``: a copy of the adapter that the base
                carries, new when it carries none; on a base of earlier `Roles`, a copy of their
                reference. ``"new"``: an adapter that changes nothing yet. Or an adapter from
                `read_adapter`.
            lora_r: Rank of new adapters; a copied one keeps its own.
            lora_alpha: Scale of new adapters; the update is multiplied by ``lora_alpha / lora_r``.
            target_modules: Layers with new adapters: names, or ``"all-linear"`` (all but the LM
                head; three times the attention's parameters in SmolLM2, and more compute).
            reference: ``"copy"``: a frozen copy of the policy's start, or the bare base when the
                start is new. ``"off"``: the bare base in any case.
            seed: Of new adapters and heads; the global random state is left alone.

        Raises:
            SettingsError: an unknown option, or an adapter that cannot share a base.
        """
        if reference not in ("copy", "off"):
            raise SettingsError(f"reference={reference!r} is unknown; use 'copy' or 'off'")
        causal = causal_model(base)
        adapter = starting_adapter(causal, start)
        strip_adapters(causal).eval()
        # A backward pass that recomputes activations might find another role active by then.
        causal.gradient_checkpointing_disable()
        self.facts = BaseFacts.of(base, causal)
        self._seed = seed
        self._new = LoraConfig(
            r=lora_r,
            lora_alpha=lora_alpha,
            lora_dropout=0.0,
            target_modules=target_modules if isinstance(target_modules, str) else [*target_modules],
            task_type="CAUSAL_LM",
        )
        with seeded(seed, self.facts.device):
            self.model = _wrap(causal, adapter.config if adapter else self._new)
        cast(self.model, "policy", self.facts.adapter_dtype)
        if adapter is not None:
            attach(self.model, "policy", adapter, self.facts.adapter_dtype)
            if reference == "copy":
                self._add_frozen_reference(adapter)
        self._logits = LogitHead.of(causal)
        self._decoder = causal.get_decoder()
        require_own_logits(causal, self._decoder, self._logits)
        self.value_head = value_head(self.facts.mark.hidden, self.facts.device)
        self.score_head: nn.Linear | None = None
        self._count_padding = False
        # Whoever puts adapters on the base next takes the mark off.
        self._mark = causal.ftkit_roles = object()

    def _add_frozen_reference(self, adapter: LoraAdapter) -> None:
        attach(self.model, "reference", adapter, self.facts.adapter_dtype)
        for _, parameter in adapter_parameters(self.model, "reference"):
            parameter.requires_grad_(False)

    def add_reward(self, adapter: LoraAdapter | None = None) -> None:
        """Add the reward role, once.

        Args:
            adapter: From `read_adapter` of a reward trainer's model, with its score head; None
                for a new adapter and a new head, to be trained here.

        Raises:
            SettingsError: there is a reward role already, or `adapter` has no score head or was
                made for another base.
        """
        if self.score_head is not None:
            raise SettingsError("these roles have a reward model already; build new Roles")
        head = score_head(self.facts.mark.hidden, self.facts.device, self._seed)
        if adapter is None:
            with seeded(self._seed + 1, self.facts.device):
                add(self.model, "reward", self._new, self.facts.adapter_dtype)
        else:
            _copy_head(adapter.head, head)
            attach(self.model, "reward", adapter, self.facts.adapter_dtype)
        for parameter in self._adapter("reward"):
            parameter.requires_grad_(True)
        self.score_head = head

    def load_reward(self, folder: str | Path) -> None:
        """Add the reward role that `save` left in `folder`; its policy is not read.

        Raises:
            RecordError: the folder cannot be read.
            SettingsError: it has no reward role or belongs to another base, or as `add_reward`.
        """
        saved = roles_io.read(Path(folder))
        require_base(saved.base, self.facts.mark, folder)
        if "reward" not in saved.adapters:
            raise SettingsError(f"{folder} holds no reward model; it has {sorted(saved.adapters)}")
        self.add_reward(replace(saved.adapters["reward"], head=saved.heads["score.weight"]))

    # Switching

    @property
    def on_base(self) -> bool:
        """Whether the base still carries these roles; later ones take their adapters off."""
        return getattr(self.model.get_base_model(), "ftkit_roles", None) is self._mark

    @property
    def active(self) -> Role:
        """The role that a forward pass of `model` plays now."""
        names = self.model.active_adapters
        return names[0] if names else "reference"

    def as_policy(self) -> AbstractContextManager[None]:
        """Play the policy in a ``with`` block, then the role before; blocks may be nested."""
        return switched(self.model, "policy")

    def as_reference(self) -> AbstractContextManager[None]:
        """Play the frozen reference in a ``with`` block, then the role before."""
        return switched(self.model, "reference" if "reference" in self.model.peft_config else None)

    def as_reward(self) -> AbstractContextManager[None]:
        """Play the reward model in a ``with`` block, then the role before.

        Raises:
            SettingsError: there is none.
        """
        if self.score_head is None:
            raise SettingsError("these roles have no reward model; call add_reward() first")
        return switched(self.model, "reward")

    @contextmanager
    def counting_padding(self, count: bool = True) -> Iterator[None]:
        """Let position ids count padding in a ``with`` block, to see what that mistake does.

        Args:
            count: False leaves the positions as they should be, in a block that counts, too.
        """
        before, self._count_padding = self._count_padding, count
        try:
            yield
        finally:
            self._count_padding = before

    def trainable(self, role: Literal["policy", "reward"]) -> Iterator[nn.Parameter]:
        """Yield what an optimizer of `role` trains: its adapter and its value or score head.

        Raises:
            SettingsError: a role that is frozen, unknown or not there.
        """
        head = {"policy": self.value_head, "reward": self.score_head}.get(role)
        if head is None:
            raise SettingsError(f"role {role!r} is not trainable here; use 'policy', or 'reward' "
                                "after add_reward()")  # fmt: skip
        yield from self._adapter(role)
        yield from head.parameters()

    def _adapter(self, role: str) -> Iterator[nn.Parameter]:
        return (parameter for _, parameter in adapter_parameters(self.model, role))

    # Forward passes

    def logprobs_and_values(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        response_start: int | Tensor,
        temperature: float = 1.0,
        with_values: bool = True,
        with_entropy: bool = False,
        entropy_slope: bool = True,
    ) -> TokenOutputs:
        """Return what the active role says about every response token, in one pass.

        The LM head reads only the states before real response tokens, a block of the vocabulary at
        a time; no ``(tokens, vocab)`` tensor exists, with gradients or without.

        Args:
            input_ids: ``(batch, time)`` prompts with their responses, padded on either side.
            attention_mask: ``(batch, time)``, 1 or true at real tokens.
            response_start: Column of the first response token, at least 1: one for all rows
                (left-padded prompts), or ``(batch,)``.
            temperature: τ > 0 of the sampler; it divides the logits.
            with_values: Whether to run the value head on the same states.
            with_entropy: Whether to return entropies.
            entropy_slope: Whether gradients flow through the entropies; without an entropy bonus
                they would be multiplied by 0.

        Raises:
            ValueError: shapes that differ, a `response_start` out of range or behind padding, no
                response token at all, τ not above 0.
        """
        if temperature <= 0:
            raise ValueError(f"{temperature=} must be above 0")
        mask = real_tokens(input_ids, attention_mask)
        columns, real = response_columns(mask, response_start)
        rows, places = torch.where(real)[0], columns[real]  # (tokens,)
        needed = predicting(mask, real)
        hidden = self._hidden(input_ids[:, : needed.shape[1]], needed)
        states = hidden[rows, places - 1]  # (tokens, hidden)
        logprobs, entropy = token_statistics(
            self._logits,
            states,
            input_ids[rows, places],
            temperature=temperature,
            with_entropy=with_entropy,
            entropy_slope=entropy_slope,
        )
        values = _read(self.value_head, states) if with_values else None
        return TokenOutputs(spread(logprobs, real), spread(values, real), spread(entropy, real),
                            real)  # fmt: skip

    def scores(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the reward model's score ``(batch,)``, float32, read at the last real token.

        Plays the reward role whatever role is active. With gradients unless under `no_grad`.

        Args:
            input_ids: ``(batch, time)``, padded on either side.
            attention_mask: ``(batch, time)``, 1 or true at real tokens; it alone says what is
                padding, so pad and stop token may be the same.

        Raises:
            SettingsError: there is no reward model.
            ValueError: shapes that differ, or a row without a real token.
        """
        mask = real_tokens(input_ids, attention_mask)
        ends = last_real(mask)
        with self.as_reward():
            hidden = self._hidden(input_ids, mask)
        return _read(self.score_head, hidden[torch.arange(len(ends), device=ends.device), ends])

    def generate(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        stop: bool = True,
    ) -> Completions:
        """Sample a completion for each prompt from the policy's softmax(z/τ), all of it.

        Top-k, nucleus, penalties and minimal lengths are not offered, nor read from the model's
        files: the scorer would not know them. The critic's values come from the same passes.

        Args:
            prompt_ids: ``(batch, time)``, padded on the left.
            prompt_mask: ``(batch, time)``, 1 or true at real tokens.
            max_new_tokens: Longest completion.
            temperature: τ > 0.
            generator: Source of randomness on the model's device; None for the global one.
            stop: Whether a stop token ends a completion; if not, all have `max_new_tokens`.

        Raises:
            ValueError: shapes that differ, padding on the right, τ or `max_new_tokens` not above 0.
        """
        if temperature <= 0 or max_new_tokens < 1:
            raise ValueError(f"{temperature=} and {max_new_tokens=} must be above 0")
        mask = real_tokens(prompt_ids, prompt_mask)
        if not mask[:, -1].all():
            row = int((~mask[:, -1]).nonzero()[0])
            raise ValueError(f"prompt {row} ends with padding; pad prompts on the left")
        was_training = self.model.training
        self.model.eval()  # in training mode gradient checkpointing would switch the cache off
        stops = self.facts.stop_ids if stop else self.facts.stop_ids[:0]
        try:
            with self.as_policy(), unpacked(self.model), folded(self.model):
                return sample(
                    self._decoder, self._logits, partial(_read, self.value_head), prompt_ids, mask,
                    max_new_tokens=max_new_tokens, temperature=temperature, stop_ids=stops,
                    pad_id=self.facts.pad_id, generator=generator,
                    count_padding=self._count_padding,
                )  # fmt: skip
        finally:
            self.model.train(was_training)

    def _hidden(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Return the last hidden states ``(batch, time, hidden)`` under the active adapter."""
        with without_gates(), lean(self.model):
            return packed_rows.read(
                self._decoder, input_ids, mask, count_padding=self._count_padding
            )[0]

    # Files and sizes

    def save(self, folder: str | Path) -> None:
        """Write adapters and heads as `folder`, atomically, in place of what was there."""
        heads = {f"value.{key}": tensor for key, tensor in self.value_head.state_dict().items()}
        if self.score_head is not None:
            heads["score.weight"] = self.score_head.weight
        adapters = {name: read_adapter(self.model, name) for name in self.model.peft_config}
        roles_io.write(Path(folder), SavedRoles(self.facts.mark, adapters, heads))

    @classmethod
    def load(cls, base: Loaded | PeftModel, folder: str | Path, *, seed: int = 0) -> Self:
        """Put the roles that `save` left in `folder` on `base`.

        Args:
            base: As for `Roles`; adapters that it carries are removed.
            folder: What `save` wrote.
            seed: Of a reward model that `add_reward` adds later.

        Raises:
            RecordError: the folder cannot be read.
            SettingsError: its adapters were made on another base.
        """
        saved = roles_io.read(Path(folder))
        mark = mark_of(base, causal_model(base))
        require_base(saved.base, mark, folder)
        roles = cls(base, start=saved.adapters["policy"], reference="off", seed=seed)
        if "reference" in saved.adapters:
            roles._add_frozen_reference(saved.adapters["reference"])
        if "reward" in saved.adapters:
            roles.add_reward(replace(saved.adapters["reward"], head=saved.heads["score.weight"]))
        value = {key: saved.heads[f"value.{key}"] for key in roles.value_head.state_dict()}
        roles.value_head.load_state_dict(value)
        return roles

    def memory(self) -> dict[str, float]:
        """Return MB (1e6 bytes) of ``base``, each role's adapter, each head, and their ``total``.

        ``four full copies`` is what four models in the base's compute dtype would take, computed;
        ``copies while sampling`` what `generate` holds besides, where memory is ample: weights that
        are unpacked, or have the adapter folded in.
        Gradients, optimizer states and activations are not part of any number.
        """
        heads = {"value head": self.value_head, "score head": self.score_head}
        parts = {"base": self.facts.memory_mb}
        parts |= {role: _megabytes(self._adapter(role)) for role in self.model.peft_config}
        parts |= {
            name: _megabytes(head.parameters()) for name, head in heads.items() if head is not None
        }
        parts["total"] = sum(parts.values())
        with self.as_policy():
            parts["copies while sampling"] = copies_mb(self.model)
        parts["four full copies"] = 4 * self.facts.full_mb
        return parts


def _read(head: nn.Module, states: Tensor) -> Tensor:
    """Return the head's number for each state ``(n, hidden)``, in float32: ``(n,)``."""
    return head(states.float()).squeeze(1)


def _copy_head(source: Tensor | None, head: nn.Linear) -> None:
    if source is None or source.shape != head.weight.shape:
        found = "none" if source is None else tuple(source.shape)
        raise SettingsError(
            f"a reward model needs a score head of shape {tuple(head.weight.shape)}, but with the "
            f"adapter comes {found}; PEFT keeps it only with modules_to_save=['score']"
        )
    with torch.no_grad():
        head.weight.copy_(source)


def _wrap(causal: Any, config: LoraConfig) -> PeftModel:
    try:
        return get_peft_model(causal, copy.deepcopy(config), adapter_name="policy")
    except ValueError as error:
        raise SettingsError(f"no policy adapter can be put on this base: {error}") from error


def _megabytes(parameters: Iterable[nn.Parameter]) -> float:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters) / 1e6
