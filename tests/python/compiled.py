"""torch.compile with Octavo's pass, and what the pass left of a graph."""

import torch

from octavo._linear_pass import QuantizedLinearPass


class RecordedPass(QuantizedLinearPass):
    """The pass, and Octavo's operators in the graphs that it has seen, sorted."""

    def __init__(self, devices=("cpu", "cuda")):
        super().__init__(devices)
        self.left = []

    def __call__(self, graph):
        super().__call__(graph)
        names = (str(node.target) for node in graph.nodes if node.op == "call_function")
        self.left = sorted(name.split(".")[1] for name in names if name.startswith("octavo."))

    def uuid(self):
        return None  # never from a cache: the pass has to run


def compiled_by(function, the_pass, **options):
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, options={"post_grad_custom_pre_pass": the_pass}, **options)


def close(found, expected):
    """As near as rounding once instead of twice in every step leaves them, and laid out alike."""
    assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())
    return ((found - expected).float().norm() / expected.float().norm()).item() < 4 * torch.finfo(found.dtype).eps
