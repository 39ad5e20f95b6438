"""QONNX files as hls4ml reads them: its C++ in fixed point, compiled by g++, against torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import waveq

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # theirs, a dozen a network
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]

CLOSE = 3e-5
PRECISION = "fixed<40,12>"  # sums and outputs; weights and inputs have the bits of their Quant nodes


def predicted(path: Path, x: Tensor, folder: Path) -> np.ndarray[Any, Any]:
    """What hls4ml's program gives. Its reader wants channels last and products instead of Gemm, which qonnx makes."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul
    from qonnx.util.cleanup import cleanup_model

    hls4ml = pytest.importorskip("hls4ml", reason="needs hls4ml")
    graph = cleanup_model(cleanup_model(ModelWrapper(str(path))).transform(GemmToMatMul()))
    if x.ndim == 4:
        graph = cleanup_model(graph.transform(ConvertToChannelsLastAndClean()))
    asked = {"backend": "Vitis", "default_precision": PRECISION}
    config = hls4ml.utils.config_from_onnx_model(graph, granularity="name", **asked)
    made = hls4ml.converters.convert_from_onnx_model(
        graph, output_dir=str(folder), backend="Vitis", hls_config=config, io_type="io_parallel"
    )
    made.compile()
    found: np.ndarray[Any, Any] = made.predict(np.ascontiguousarray(x.numpy()))
    return found


@pytest.mark.parametrize("quantizer", ["lsq", "wrpn", "dorefa"])
@pytest.mark.parametrize("network", ["convolutions", "linear"])
def test_hls4ml_computes_what_torch_computes(quantizer: str, network: str, tmp_path: Path) -> None:
    pytest.importorskip("qonnx.core.onnx_exec", reason="needs qonnx")
    pytest.importorskip("hls4ml", reason="needs hls4ml")
    torch.manual_seed(0)
    if network == "linear":
        model, x = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)), torch.randn(8, 16)
    else:
        layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten()]
        model, x = nn.Sequential(*layers, nn.Linear(12, 4)), torch.randn(8, 2, 8, 8)
    bits = dict(zip([name for name, each in model.named_modules() if hasattr(each, "weight")], (5, 3, 4), strict=False))
    scale: dict[str, Any] = {} if quantizer == "lsq" else {"scale": "max"}
    wq = waveq.attach(model, bits=bits, total_steps=1, quantizer=quantizer, activation_bits=4, **scale)
    model.train()(x)
    wq.finalize()
    model.eval()
    waveq.export(model, wq.policy(), tmp_path / "net.onnx", to="qonnx", sample=x)
    with torch.no_grad():
        expected = model(x).numpy()
    assert (
        np.abs(predicted(tmp_path / "net.onnx", x, tmp_path / "hls").reshape(expected.shape) - expected).max() < CLOSE
    )
