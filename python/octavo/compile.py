"""torch.compile around quantized layers."""

import functools
from typing import Any

import torch

from . import ops  # noqa: F401  (registers the operators)


@functools.cache
def _pass():
    """One for all calls: options that are equal need no second compilation."""
    from ._linear_pass import QuantizedLinearPass  # with it comes inductor, which takes seconds to import

    return QuantizedLinearPass(("cuda",) if torch.ops.octavo.has_cuda() else ())


def compile_options(mode: str = "default", dependent_launch: bool = False) -> dict[str, Any]:
    """Options for torch.compile with which decoder layers of quantized Linears run faster on CUDA:

        octavo.join_weights(model)
        model.forward = torch.compile(model.forward, options=octavo.compile_options("reduce-overhead"))

    or, for transformers' generate() with a static cache, as compile_config

        transformers.CompileConfig(mode=None, options=octavo.compile_options("reduce-overhead"))

    In front of quantized Linears, in float16 and bfloat16, Octavo's kernels compute RMSNorm as transformers' Llama
    writes it (weight · x.to(dtype), in float32), the addition of the residual in front of it, and silu(gate) · up.
    Behind them a Linear's kernel starts early. They round once where eager code rounds twice. And Linears of one input
    that follow each other are one product where join_weights() has moved their weights together. All else, and other
    devices, are left as they are; so are normalizations with dynamic=True, where torch makes an input of their eps.

    Args:
        mode: one of torch.compile's, whose options are included, since it takes a mode or options.
        dependent_launch: that kernels which torch generates take part in programmatic dependent launch too (torch 2.11,
            on Hopper or newer; TORCHINDUCTOR_ENABLE_PDL), which gains a little more. Off by default because of a flaw
            in torch 2.11: its kernels without inputs, such as a fill, do not wait for the kernel in front of them, and
            one behind may then read what that one has not written yet.

    Raises:
        RuntimeError: torch knows no such mode.
    """
    options = dict(torch._inductor.list_mode_options(mode))
    options["post_grad_custom_pre_pass"] = _pass()
    if dependent_launch and hasattr(torch._inductor.config.triton, "enable_pdl"):
        options["triton.enable_pdl"] = True
    return options
