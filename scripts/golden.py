"""Copies of recorded networks that are small enough for the repository: scripts/golden.py FOLDER [NAME..]

Reads FOLDER/NAME.safetensors and .json, leaves out the block Hessian, the perturbed inputs, the direct solves and the
full gradients (norms and signed sums of each stay in the .json), and writes the rest to tests/data/nets.
"""

import json
import struct
import sys
from pathlib import Path

LEFT_OUT = ("golden.H_P", "golden.pert.", "golden.d_lambda", "golden.grad.", "golden.taps_reference_hook", "golden.w_P")
KEPT = ("name", "arch", "selection", "grad_checks", "Hv_full_checks", "taps_exec", "layers_module_order", "f32_relerr")

source = Path(sys.argv[1])
target = Path(__file__).parent.parent / "tests/data/nets"
for name in sys.argv[2:] or ["small_cnn", "resnet50_w8_bottleneck", "vitmini_32", "distilbert_tiny"]:
    data = (source / f"{name}.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    out, place, parts = {}, 0, []
    for tensor, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if not tensor.startswith(LEFT_OUT):
            first, last = info["data_offsets"]
            out[tensor] = info | {"data_offsets": [place, place + last - first]}
            place += last - first
            parts.append(body[first:last])
    text = json.dumps(out, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    (target / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    info = json.loads((source / f"{name}.json").read_text())
    kept = {key: info[key] for key in KEPT}
    (target / f"{name}.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")
