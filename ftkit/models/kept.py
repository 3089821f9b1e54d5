"""What hooks on saved tensors keep for the backward pass, with the care that autograd takes."""

from torch import Tensor


class Kept:
    """A tensor that a hook keeps for the backward pass, as autograd would keep it itself.

    Without its node of the graph: a node that keeps its own result would never be freed unless a
    backward pass comes. And not to be changed in place, which autograd checks only without hooks.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()
        self._version = tensor._version

    def unchanged(self) -> Tensor:
        """Return the tensor.

        Raises:
            RuntimeError: it was changed in place since.
        """
        if self.tensor._version != self._version:
            raise RuntimeError(
                f"a tensor {tuple(self.tensor.shape)} that the backward pass needs was changed in "
                "place; the model must write its result elsewhere"
            )
        return self.tensor
