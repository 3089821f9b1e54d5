"""What autograd keeps of a forward pass, tensor by tensor, and what passes need for a moment.

Counted on transformers' Llama block with PyTorch's own kernels, to the byte (the tests compare
with what autograd really saves). Other blocks with the same parts come close: an MLP without
gate is counted with two inner tensors, and whatever a model adds (soft caps, norms of queries
and keys, routers) is left out.
"""

from ftkit.models.shape import ModelShape
from ftkit.stages.costs.plan import MemoryPlan

FLOAT32 = 4
_TRL_VOCAB_TILE = 32_768  # trl.trainer.utils, the fused head
_TRL_TOKEN_TILE = 4_096
_TORCH_TILES = 7.25  # float32 temporaries of the same head without Triton, and a mask
_LOSS_COPIES = 3  # log-softmax, its gradient, the logits' gradient; all float32
_SAMPLING_COPIES = 7  # logits, scores, probabilities, … of one position, float32


def width(dtype: str) -> int:
    """Return the bytes of one number of a floating-point dtype."""
    return {"float32": 4, "bfloat16": 2}[dtype]


def block_bytes(shape: ModelShape, plan: MemoryPlan) -> float:
    """Return what one block keeps for the backward pass of `plan`'s rows, in bytes."""
    size, full = width(plan.compute), plan.method == "full"
    mlp = full or plan.targets == "all-linear"
    norms = 2 * shape.hidden  # their inputs, in float32 whatever the compute dtype
    inputs = (1 + mlp) * shape.hidden  # of the query/key/value and of the MLP's layers
    normed = 2 * shape.hidden if full else 0  # for the gradient of the norms' own weights
    attention = 2 * shape.query + 2 * shape.key_value
    inner = ((3 if shape.gated else 1) + mlp) * shape.inner
    kept: float
    if plan.autocast:  # each layer casts its own copy of its input; norms stay in float32
        kept = size * (5 * shape.hidden + attention + inner) + FLOAT32 * normed
    else:
        kept = size * (inputs + normed + attention + inner)
    kept += FLOAT32 * (norms + 2) + adapter_bytes(shape, plan)
    return plan.tokens * kept + scores_bytes(shape, plan)


def adapter_bytes(shape: ModelShape, plan: MemoryPlan) -> float:
    """Return what one block's adapters keep for each token: r numbers a linear layer."""
    if plan.method == "full":
        return 0.0
    count = shape.linears if plan.targets == "all-linear" else shape.attention_linears
    return width(plan.compute) * plan.lora_r * count / shape.layers


def scores_bytes(shape: ModelShape, plan: MemoryPlan) -> float:
    """Return what attention keeps beside queries, keys, values and output: one block's.

    sdpa keeps one number a head and token; eager keeps the probabilities (and a cast copy) and
    the keys and values repeated for each query head.
    """
    if plan.attention == "sdpa":
        return FLOAT32 * shape.heads * plan.tokens
    size = width(plan.compute)
    square = plan.rows * shape.heads * plan.length**2 * (FLOAT32 + (size if size < 4 else 0))
    repeated = size * plan.tokens * 2 * (shape.query - shape.key_value)
    return square + repeated


def kept_bytes(shape: ModelShape, plan: MemoryPlan) -> float:
    """Return what the whole forward pass keeps for the backward pass, in bytes."""
    hidden, size = plan.tokens * shape.hidden, width(plan.compute)
    last = FLOAT32 + (2 * size if plan.method == "full" else 0)  # the norm before the head
    if plan.checkpointing:
        return hidden * (size * shape.layers + last)
    blocks = shape.layers * block_bytes(shape, plan)
    if plan.method == "lora":  # nothing before the first adapter has a gradient
        blocks -= FLOAT32 * hidden
    return blocks + hidden * last


def recomputed_bytes(shape: ModelShape, plan: MemoryPlan) -> float:
    """Return what checkpointing computes again for one block at a time, in bytes."""
    return block_bytes(shape, plan) if plan.checkpointing else 0.0


def backward_bytes(shape: ModelShape, plan: MemoryPlan) -> float:
    """Return the gradients of activations that are alive inside one block's backward pass.

    Two of the MLP's branches (their forward input is gone by then), and the residual stream's.
    """
    return width(plan.compute) * plan.tokens * (2 * shape.inner + shape.hidden)


def forward_bytes(shape: ModelShape, plan: MemoryPlan, tokens: int) -> float:
    """Return what a forward pass without gradients needs inside one block, in bytes."""
    return width(plan.compute) * tokens * (3 * shape.inner + 4 * shape.hidden)


def loss_bytes(shape: ModelShape, plan: MemoryPlan, copies: float = _LOSS_COPIES) -> float:
    """Return the largest moment of logits, loss and their gradient, in bytes."""
    if plan.stage == "reward":
        return 0.0  # one number a row
    if plan.head == "whole":
        return copies * FLOAT32 * plan.tokens * shape.vocab
    tile = min(plan.tokens, _TRL_TOKEN_TILE)
    buffer = width(plan.compute) * tile * _TRL_VOCAB_TILE
    torch_only = _TORCH_TILES * FLOAT32 * tile * min(shape.vocab, _TRL_VOCAB_TILE)
    gradient = FLOAT32 * shape.vocab * shape.hidden if plan.method == "full" else 0
    states = FLOAT32 * plan.tokens * shape.hidden
    return buffer + gradient + states + (torch_only if plan.device == "cpu" else 0)


def cache_bytes(shape: ModelShape, plan: MemoryPlan, rows: int) -> float:
    """Return the KV cache of `rows` full sequences, and one layer's copy while it grows."""
    one = width(plan.compute) * 2 * shape.key_value * rows * plan.length
    return one * shape.layers + one / 2


def sampling_bytes(shape: ModelShape, rows: int) -> float:
    """Return logits and probabilities of one position while a token is drawn, in bytes."""
    return _SAMPLING_COPIES * FLOAT32 * rows * shape.vocab
