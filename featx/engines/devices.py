"""On what Keras' backend runs."""

from __future__ import annotations

import platform

import joblib

from featx.exceptions import EngineError

_FOR_GPUS = ("tf32", "float16")


def devices() -> list[str]:
    """List the devices that Keras' backend would use, such as ``["cpu:0"]`` or ``["gpu:0"]``."""
    import keras

    if keras.backend.backend() == "torch":  # of which Keras lists none
        import torch

        return [f"gpu:{n}" for n in range(torch.cuda.device_count())] or ["cpu:0"]
    return list(keras.distribution.list_devices())


def has_accelerator() -> bool:
    """Tell whether Keras' backend would run on something other than a CPU."""
    return not all(device.startswith("cpu") for device in devices())


def device_name() -> str:
    """Describe the device, such as ``"cpu:0, x86_64, 2 cores"``."""
    return f"{devices()[0]}, {platform.machine()}, {joblib.cpu_count()} cores"


def check_device(precision: str) -> None:
    """Check that a precision makes sense here.

    Raises
    ------
    EngineError
        It is one for GPUs, and there is none.
    """
    if precision in _FOR_GPUS and not has_accelerator():
        raise EngineError(
            f"precision={precision!r} is for GPUs, and Keras finds none: pass 'float32' or "
            "'bfloat16'"
        )
