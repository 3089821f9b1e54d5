"""The maths of the course as small pure functions: tensors in, tensors out, no model, no I/O."""

from ftkit.algos.losses import causal_lm_loss, masked_mean, token_losses

__all__ = ["causal_lm_loss", "masked_mean", "token_losses"]
