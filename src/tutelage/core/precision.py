"""Which precision a run computes in."""

import torch

from tutelage.core.errors import ConfigError

AUTO = "auto"


def resolve(precision: str, *, accelerator: str) -> str:
    """Return the name that Lightning has for a precision.

    Args:
        precision: A name of Lightning's, or ``auto``: weights in fp32 and arithmetic in bf16 where the device has
            bf16 arithmetic, else all in fp32.
        accelerator: As in the config; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: fp16 on a CPU, which Lightning would silently turn into bf16, or bf16 on a GPU that emulates it.
    """
    if precision == AUTO:
        return "bf16-mixed" if has_bf16(accelerator) else "32-true"
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if precision.startswith("16") and on_cpu:
        raise ConfigError(
            "trainer.precision", f"{precision} needs a GPU", "set trainer.precision=bf16-mixed or 32-true"
        )
    if precision.startswith("bf16") and not on_cpu and torch.cuda.is_available() and not has_bf16(accelerator):
        raise ConfigError(
            "trainer.precision",
            f"{precision}: {torch.cuda.get_device_name()} has no bf16 arithmetic, and emulating it is slower than fp32",
            "set trainer.precision=16-mixed or 32-true",
        )
    return precision


def has_bf16(accelerator: str) -> bool:
    """Tell whether the device multiplies bf16 matrices in hardware."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator in ("gpu", "cuda"):
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
