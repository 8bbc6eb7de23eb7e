"""The capabilities of this machine's hardware."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16; elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases of torch
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
