"""What every stage does to base and trainer: clean base, compute dtype, one progress display."""

import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from transformers.integrations.neftune import neftune_post_forward_hook

from ftkit.errors import SettingsError
from ftkit.models import Loaded
from ftkit.models.lora import strip_adapters, tuner_layers


@runtime_checkable
class Display(Protocol):
    """A callback that replaces the trainer's own progress display, such as `LiveMetrics`."""

    def attach(self, trainer: Any) -> Any:
        """Replace the display of `trainer`."""


def attach_displays(trainer: Any, callbacks: Sequence[Any]) -> None:
    """Let those of `callbacks` that draw their own picture replace the trainer's display."""
    for callback in callbacks:
        if isinstance(callback, Display):
            callback.attach(trainer)


def fresh_base(model: Any) -> Any:
    """Return `model` as it was loaded: without what an earlier trainer left in it.

    PEFT puts its layers into the model in place, so building a second trainer on the same base
    would stack adapters; they are taken out, and the weights that PEFT froze are trainable again.
    A run that was interrupted leaves NEFTune's noise on the embeddings; that goes, too. The
    base's own weights are untouched. The earlier trainer's model is this base without adapter
    from then on, so save an adapter first: ``trainer.save_model(folder)``.
    """
    adapted = any(True for _ in tuner_layers(model))
    strip_adapters(model)
    if adapted:
        for parameter in model.parameters():
            # Quantized weights are packed integers, in whatever dtype they are stored.
            packed = hasattr(parameter, "quant_state") or not parameter.is_floating_point()
            parameter.requires_grad_(not packed)
    # Without the hooks below, recomputed activations would carry no gradient to an adapter.
    if model.is_activation_checkpointing:
        model.activation_checkpointing_disable()
    for module in model.modules():
        _unhook(module)
    return model


def warn_of_trained_adapter(model: nn.Module, stacklevel: int = 3) -> None:
    """Warn that `fresh_base` would throw trained weights away, if there are any.

    Args:
        model: The base's model.
        stacklevel: The frame that the warning names; 3 is the caller of the stage that calls here.
    """
    trained = any(
        bool(weight.any())
        for layer in tuner_layers(model)
        for name, weight in layer.named_parameters()
        if name.startswith("lora_B.")  # zero until the first step
    )
    if trained:
        warnings.warn(
            "the base carries a trained adapter of an earlier trainer, which is removed now: that "
            "trainer's model becomes the bare base. Save it first (trainer.save_model(folder)); "
            "where it is not needed any more, ftkit.stages.fresh_base(base.model) says so",
            stacklevel=stacklevel,
        )


def _unhook(module: nn.Module) -> None:
    """Remove the forward hooks that trainers put on embeddings and nobody else would take off."""
    for key, hook in list(module._forward_hooks.items()):
        name = getattr(hook, "__name__", "")
        # Defined anew at each call (`enable_input_require_grads`), so known by its name alone.
        if hook is neftune_post_forward_hook or name.startswith("make_inputs_require_grad"):
            del module._forward_hooks[key]


def require_distinct_pad(tokenizer: Any, harm: str) -> None:
    """Refuse a tokenizer whose pad token also ends answers.

    Args:
        tokenizer: The one that pads.
        harm: What would go wrong, for the error.

    Raises:
        SettingsError: it has no pad token, or one that is its stop token.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise SettingsError(
            f"the tokenizer's pad token is {tokenizer.pad_token!r}, its stop token "
            f"{tokenizer.eos_token!r}: {harm}. Load with ftkit.load(..., pad='distinct')"
        )


def compute_dtype(base: Loaded) -> torch.dtype:
    """Return the dtype of the base's activations, as its card says."""
    dtype: torch.dtype = getattr(torch, base.card.compute_dtype)
    return dtype


def match_compute_dtype(model: Any, base: Loaded) -> None:
    """Cast the trainable weights to the dtype that the quantized layers compute in.

    TRL casts adapters of a quantized base to bfloat16 whatever the arguments say; on a CPU that
    computes in float32 this is slow, and heads fail with two dtypes in one product.
    """
    dtype = compute_dtype(base)
    # fp16 training keeps its trainable weights in float32: the gradient scaler needs them so.
    dtype = torch.float32 if dtype is torch.float16 else dtype
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


def shared_arguments(base: Loaded, recipe: Any, *, evaluate: bool) -> dict[str, Any]:
    """Return the arguments that every TRL config of ftkit shares: sizes, rhythm, hardware.

    Args:
        base: Decides device and precision.
        recipe: `SFTRecipe`, `RewardRecipe`: sizes, rates and rhythm under the same names.
        evaluate: Whether there are held-out rows to score.
    """
    on_cpu = base.model.device.type == "cpu"
    evaluate = evaluate and recipe.eval_every > 0
    return {
        "output_dir": tempfile.mkdtemp(prefix="ftkit-"),
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": min(recipe.warmup_steps, recipe.steps - 1),
        "max_length": recipe.max_length,
        "logging_steps": recipe.log_every,
        "eval_strategy": "steps" if evaluate else "no",
        "eval_steps": recipe.eval_every if evaluate else None,
        "eval_on_start": evaluate,
        "save_strategy": "no",
        "report_to": "none",
        "seed": recipe.seed,
        "bf16": compute_dtype(base) is torch.bfloat16 and not on_cpu,
        "fp16": compute_dtype(base) is torch.float16,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        # Recomputing activations saves memory, which a small model on a CPU has to spare.
        "gradient_checkpointing": not on_cpu,
    }
