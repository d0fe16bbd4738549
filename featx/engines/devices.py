"""``device_name``, ``check_can_run``: the device of Keras' backend, and whether it can run here.

TensorFlow and OpenVINO cannot run in a process that was forked after they ran. A fork copies only
the thread that called it, and they would wait forever for their other threads.
"""

from __future__ import annotations

import os
import platform
import sys

import joblib

from featx.exceptions import EngineError

_FOR_GPUS = ("tf32", "float16")
# Files of the drivers of GPUs and TPUs.
_ACCELERATOR_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
# Variables of oneDNN, the library of TensorFlow and torch for CPUs.
_FPMATH_VARIABLES = (
    "TF_SET_ONEDNN_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)


def _backend_devices() -> list[str]:
    """List the devices that Keras' backend would use, such as ``["cpu:0"]`` or ``["gpu:0"]``."""
    import keras

    if keras.backend.backend() == "torch":  # Keras lists none of its devices
        import torch

        return [f"gpu:{n}" for n in range(torch.cuda.device_count())] or ["cpu:0"]
    return list(keras.distribution.list_devices())


def has_accelerator() -> bool:
    """Return True if Keras' backend would run on something other than a CPU."""
    return not all(device.startswith("cpu") for device in _backend_devices())


def may_have_accelerator() -> bool:
    """Return False if Keras would certainly run on a CPU; Keras is not imported for this."""
    if "keras" in sys.modules:
        return has_accelerator()
    is_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return is_apple or any(map(os.path.exists, _ACCELERATOR_FILES))


def device_name() -> str:
    """Describe the device, such as ``"cpu:0, x86_64, 2 cores"``."""
    device = _backend_devices()[0] if may_have_accelerator() else "cpu:0"
    return f"{device}, {platform.machine()}, {joblib.cpu_count()} cores"


def check_device(precision: str) -> None:
    """Raise EngineError if a precision makes no sense on this device.

    Without a GPU, that is a precision for GPUs, or float32 where it would be computed in fewer
    bits.
    """
    if precision in _FOR_GPUS and not has_accelerator():
        raise EngineError(
            f"precision={precision!r} is for GPUs, and Keras finds none: pass 'float32' or "
            "'bfloat16'"
        )
    if precision == "float32" and not has_accelerator() and (rounding := _fpmath_settings()):
        raise EngineError(
            f"{', '.join(rounding)} is set, which makes a CPU compute float32 in fewer bits: unset "
            "it, or pass precision='bfloat16'"
        )


def fpmath_variables() -> list[str]:
    """Return the environment variables that let oneDNN round float32 to fewer bits on a CPU."""
    return [
        f"{name}={os.environ[name]}"
        for name in _FPMATH_VARIABLES
        if os.environ.get(name, "").upper() not in ("", "STRICT")
    ]


def _fpmath_settings() -> list[str]:
    """Return all settings that let oneDNN round float32 to fewer bits on a CPU."""
    import keras

    found = fpmath_variables()
    if keras.backend.backend() == "torch":
        from torch.backends import mkldnn

        for name in ("matmul", "conv", "rnn"):
            value = getattr(getattr(mkldnn, name, None), "fp32_precision", "none")
            if value not in ("none", "ieee"):
                found.append(f"torch.backends.mkldnn.{name}.fp32_precision={value!r}")
    return found


_runs_stored_graphs = False
_ran_before_fork = ""  # the library that did


def note_stored_graph() -> None:
    """Note that this process runs a stored graph."""
    global _runs_stored_graphs
    _runs_stored_graphs = True


def check_can_run() -> None:
    """Raise EngineError if a network ran already when this process was forked."""
    if _ran_before_fork:
        raise EngineError(
            f"this process was forked from one in which {_ran_before_fork} ran, and would wait "
            "forever. Embed the samples before forking: cached rows are found in any process. Or "
            "start processes without forking, as n_jobs of scikit-learn and joblib and "
            "multiprocessing.get_context('spawn') do."
        )


def _note_fork() -> None:
    global _ran_before_fork
    if _has_tensorflow_run():
        _ran_before_fork = "TensorFlow"
    elif _runs_stored_graphs:
        _ran_before_fork = "OpenVINO or ONNX Runtime"


def _has_tensorflow_run() -> bool:
    """Return True if TensorFlow has run, after which its number of threads cannot change."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return False
    threading = tensorflow.config.threading
    n_threads = threading.get_inter_op_parallelism_threads()
    try:
        threading.set_inter_op_parallelism_threads(n_threads + 1)
    except RuntimeError:
        return True
    threading.set_inter_op_parallelism_threads(n_threads)
    return False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
