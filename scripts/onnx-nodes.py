"""The ONNX project's node tests of the operators that are read, through the program: scripts/onnx-nodes.py SCRUBJAY [FOLDER]

Each test is made a classifier: its first input is the image, the others become stored tensors, and a fixed matrix behind
its flattened output gives five logits, expected ones from the test's own output. A test is right, or refused by name, or
wrong. With a FOLDER, one right test for each operator and setting is recorded there. Needs onnx, numpy, safetensors.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from safetensors.numpy import load_file, save_file

OPERATORS = """Add AveragePool BatchNormalization Cast Clip Concat Conv Div Dropout Elu Erf Flatten Gather Gelu Gemm
    GlobalAveragePool GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu LogSoftmax MatMul
    MaxPool Mul Pad Pow ReduceMean Relu Reshape Sigmoid Slice Softmax Softplus Split Squeeze Sub Sum Swish Tanh Transpose
    Unsqueeze""".split()
CLASSES = 5
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad"}  # its output is recorded to four decimals


def classifier(case):
    """The test as a classifier, its images, and the logits of its output."""
    model, (inputs, outputs) = case.model, case.data_sets[0]
    [node] = [node for node in model.graph.node]
    x, y = numpy.asarray(inputs[0]), numpy.asarray(outputs[0])
    if x.dtype != numpy.float32 or y.dtype != numpy.float32 or x.ndim == 0 or x.size == 0 or y.ndim == 0 or y.shape[0] != x.shape[0]:
        return None
    names = [value.name for value in model.graph.input]
    stored = [numpy_helper.from_array(numpy.asarray(v), n) for v, n in list(zip(inputs, names))[1:]]
    image, before = x, []
    if x.ndim not in (2, 4):
        image = x.reshape(x.shape[0], -1)
        stored.append(numpy_helper.from_array(numpy.array(x.shape, dtype=numpy.int64), "~shape"))
        before = [helper.make_node("Reshape", ["~image", "~shape"], [names[0]])]
    flat = y.reshape(y.shape[0], -1)
    matrix = numpy.sin(numpy.arange(flat.shape[1] * CLASSES, dtype=numpy.float64) + 1).reshape(-1, CLASSES)
    matrix = (matrix / numpy.sqrt(flat.shape[1])).astype(numpy.float32)
    stored.append(numpy_helper.from_array(matrix, "~matrix"))
    result = model.graph.output[0].name
    after = [
        helper.make_node("Flatten", [result], ["~flat"], axis=1),
        helper.make_node("MatMul", ["~flat", "~matrix"], ["~logits"]),
    ]
    graph = helper.make_graph(
        before + [node] + after,
        case.name,
        [helper.make_tensor_value_info("~image" if before else names[0], TensorProto.FLOAT, image.shape)],
        [helper.make_tensor_value_info("~logits", TensorProto.FLOAT, [x.shape[0], CLASSES])],
        stored,
    )
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return made, image, flat.astype(numpy.float64) @ matrix.astype(numpy.float64)


def judged(program, model, image, expected, folder, allowed):
    onnx.save(model, folder / "m.onnx")
    save_file({"x": image, "y": numpy.zeros(len(image), dtype=numpy.int64)}, folder / "in.safetensors")
    files = ["--input", folder / "in.safetensors", "--out", folder / "out.safetensors"]
    command = [program, "observe", "--device", "cpu", "--model", folder / "m.onnx", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        line = done.stderr.strip().splitlines()[-1]
        return "refused" if "panicked" not in done.stderr else "wrong", line.split("m.onnx: ")[-1]
    found = load_file(folder / "out.safetensors")["logits"]
    off = numpy.linalg.norm(found - expected) / max(numpy.linalg.norm(expected), 1e-30)
    return ("right", f"{off:.1e}") if off < allowed else ("wrong", f"off by {off:.1e}")


def main():
    program, folder = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None
    counts, records, seen = Counter(), {}, set()
    numpy.seterr(all="ignore")
    for case in collect_testcases(None):
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in OPERATORS:
            continue
        wrapped = classifier(case)
        if wrapped is None:
            counts["passed over"] += 1
            continue
        model, image, expected = wrapped
        with tempfile.TemporaryDirectory() as scratch:
            verdict, words = judged(program, model, image, expected, Path(scratch), 5e-4 if case.name in ROUNDED else 1e-5)
        counts[verdict] += 1
        print(f"{verdict:<8} {case.name:<60} {words}", flush=True)
        settings = sorted((a.name, str(helper.get_attribute_value(a))) for a in nodes[0].attribute)
        form = (nodes[0].op_type, tuple(settings))
        if folder and verdict == "right" and form not in seen and case.name not in ROUNDED and model.ByteSize() < 8000:
            seen.add(form)
            onnx.save(model, folder / f"{case.name}.onnx")
            records |= {f"{case.name}.x": image, f"{case.name}.logits": expected}
    if folder:
        save_file(records, folder / "nodes.safetensors")
    print(dict(counts))


if __name__ == "__main__":
    main()
