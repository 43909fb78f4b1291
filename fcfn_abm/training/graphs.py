"""CUDA graphs: many small kernels launched at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_WARM_UPS = 3  # as in torch's documentation


@dataclass(frozen=True)
class _Captured:
    """A graph, with the memory that it reads and writes."""

    graph: Any
    inputs: tuple[Tensor, ...]
    output: Tensor


class Graphs:
    """Runs functions of tensors as CUDA graphs, one per function and argument shapes.

    On a CPU, or after a failed capture, functions are called directly. Captured functions must not
    read values of tensors, and their work must depend only on shapes.

    References
    ----------
    "CUDA Graphs" in the CUDA semantics of PyTorch's documentation.
    """

    def __init__(self) -> None:
        self._captured: dict[Any, _Captured] = {}
        self._pool: Any = None
        self.failure = ""
        """Why capturing failed; empty if it did not."""

    def __len__(self) -> int:
        return len(self._captured)

    def run(self, name: Hashable, function: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """Return ``function(*given)`` as a new tensor.

        ``name`` identifies the function: under equal names it must compute the same on equal
        shapes.
        """
        if self.failure or not given[0].is_cuda:
            return function(*given)
        key = (name, *(tensor.shape for tensor in given))
        if key not in self._captured:
            try:
                self._captured[key] = self._capture(function, given)
            except RuntimeError as error:  # including out of memory
                self.failure = str(error).splitlines()[0]
                self._captured.clear()
                return function(*given)
        captured = self._captured[key]
        for static, tensor in zip(captured.inputs, given, strict=True):
            static.copy_(tensor)
        captured.graph.replay()
        # cloned at once: graphs share a pool, so the next replay may write there
        return captured.output.clone()

    def _capture(self, function: Callable[..., Tensor], given: tuple[Tensor, ...]) -> _Captured:
        import torch

        inputs = tuple(tensor.clone() for tensor in given)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = function(*inputs)
        return _Captured(graph, inputs, output)
