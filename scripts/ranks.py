#!/usr/bin/env python3
"""Runs every command that ranks share under mpirun, or torchrun, and compares the files with those of one process.

    scripts/ranks.py target/debug/scrubjay [--ranks 1,2,3,4] [--only NAME] [--torchrun torchrun]

For mpirun the program is built with --features mpi; ranks of torchrun exchange over TCP, and nothing is killed there. With 1 to 4 ranks every file and the JSON on standard output must be the same, times
apart. Then ranks are killed, interrupted and given inputs that differ: all must end within seconds, with the reason, and a run
that was stopped must go on with another number of ranks to the same bytes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from interrupted import files, timeless

DATA = "--data digits/train.safetensors"
FORGET = "--forget digits/forget.txt"
VAL = "--val digits/val.safetensors"
HOLD = f"scrub --model base {DATA} {FORGET} {VAL} --method hold --batch 9 --proxy-epochs 2 --hold-epochs 2 --gate 100 --json"
COMMANDS = {
    "train": f"train --arch cnn:4+8 --epochs 2 --keep-epochs 1 --exclude 200-1199 --seeds 2 {DATA} --out OUT --json",
    "train with batch norm": f"train --arch resnet20 --epochs 1 --batch-size 24 --exclude 40-1199 {DATA} --out OUT --json",
    "scrub": f"scrub --model base {DATA} --forget 0-3 --batch 2 --method lcodec --wrong-labels --perturbations 40 --gate 100"
    " --retain n:60@1 --delta-file --out OUT --json",
    "hold": f"{HOLD} --out OUT",
    "hold of a block": f"{HOLD} --block 0.3 --out OUT",
    "observe": "observe --model base --input digits/test.safetensors --out OUT/trace.safetensors",
    "observe copies": "observe --model base --input one.safetensors --perturbations 30 --out OUT/trace.safetensors",
    "curvature": "curvature --model base --input digits/test.safetensors --block block.json --damping 0.1 --solve"
    " --out OUT/step.safetensors",
    "verify": f"verify --before base --after other --reference third fourth {DATA} {FORGET} --test digits/test.safetensors"
    " --out OUT/verify.json --json",
    "eval": "eval --model base --data digits/test.safetensors --json",
    "foci": "foci table.csv --target target --plot OUT/steps.svg --all --json",
    "codec": "codec table.csv --y target --z a --permutations 99 --json",
    "foci --graph": "foci table.csv --graph --dot OUT/graph.dot --resume OUT/graph.jsonl --json",
}
# Nine batches of six epochs, to be stopped within one of them.
LONG = f"scrub --model base {DATA} {FORGET} {VAL} --method hold --batch 3 --proxy neighbours --hold-epochs 6 --gate 100 --json"
SECONDS = 20  # within which all ranks must have ended


class Bench:
    def __init__(self, program, folder, torchrun=None):
        self.program, self.folder, self.torchrun = program, folder, torchrun

    def launch(self, ranks, line, **options):
        launcher = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks else []
        if ranks and self.torchrun:
            launcher = [self.torchrun, "--standalone", "--nproc-per-node", str(ranks), "--no-python"]
        words = [*launcher, self.program, *line.split(), "--device", "cpu", "--threads", "1"]
        return self.start(words, **options)

    def start(self, words, **options):
        return subprocess.Popen(words, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run(self, ranks, line):
        process = self.launch(ranks, line)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def result(self, ranks, line, fresh=True):
        """Exit code, standard output and files."""
        out = self.folder / "out"
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
        code, said, err = self.run(ranks, line.replace("OUT", "out"))
        assert code in (0, 3) or ranks and self.torchrun, f"{line}\n{err}"
        if ranks and self.torchrun and "exitcode  : 3" in err:
            code = 3  # torchrun itself ends with 1
        said = timeless(json.loads(said)) if said.strip() else None
        return code, said, files(out)

    def ends(self, process, words, since=None):
        """All ranks end in time, and one of them says why, once."""
        since = since or time.monotonic()
        _, err = process.communicate(timeout=SECONDS)
        took = time.monotonic() - since
        assert process.returncode != 0, err
        for word in words:
            assert word in err, f"`{word}` is not in: {err}"
        assert err.count("error:") <= 1, err
        return took


def prepare(bench):
    run = lambda line: subprocess.run([bench.program, *line.split()], cwd=bench.folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run("demo --data-out digits")
    for seed, name in enumerate(("base", "other", "third", "fourth")):
        left_out = "--exclude digits/forget.txt" if seed > 1 else ""
        run(f"train --arch mlp:12 --epochs 6 --seed {seed} {DATA} {left_out} --out {name} --device cpu")
    (bench.folder / "block.json").write_text('[["fc1", 3], ["fc1", 0], ["fc2", 4]]')
    rows = ["a,b,c,d,e,target"]
    for i in range(70):
        a, b, c, d, e = (i * k % 71 for k in (37, 29, 11, 53, 5))
        rows.append(f"{a},{b},{c},{d % 7},{e % 2},{(a - 35) ** 2 + d % 7}")
    (bench.folder / "table.csv").write_text("\n".join(rows) + "\n")
    data = (bench.folder / "digits/test.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    parts, tensors = {}, b""  # one image, the first
    for name in ("x", "y"):
        (start, end), shape = header[name]["data_offsets"], header[name]["shape"]
        part = body[start : start + (end - start) // shape[0]]
        parts[name] = {"dtype": header[name]["dtype"], "shape": [1, *shape[1:]], "data_offsets": [len(tensors), len(tensors) + len(part)]}
        tensors += part
    header = json.dumps(parts).encode()
    header += b" " * (-len(header) % 8)
    (bench.folder / "one.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + tensors)


def children(process):
    """The ranks that mpirun started."""
    found = [pid for task in Path(f"/proc/{process.pid}/task").glob("*/children") for pid in task.read_text().split()]
    return [int(pid) for pid in found if Path(f"/proc/{pid}/comm").read_text().startswith("scrubjay")]


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def stopped(bench, expected):
    """A hold whose ranks are killed or interrupted goes on with another number of ranks."""
    out = bench.folder / "out"
    line = f"{LONG} --out out"
    for how, ranks, later in (("kill", 3, 2), ("interrupt", 2, 4)):
        shutil.rmtree(out)
        process = bench.launch(ranks, line)
        wait_for(out / "events.jsonl", process)
        while (out / "events.jsonl").stat().st_size < 200:  # more than its header
            time.sleep(0.01)
        since = time.monotonic()
        if how == "kill":
            os.kill(children(process)[-1], signal.SIGKILL)
            took = bench.ends(process, ["signal 9"], since)
        else:
            process.send_signal(signal.SIGINT)
            took = bench.ends(process, [], since)
        assert not (out / "report.json").exists(), "it was finished before"
        assert bench.result(later, f"{LONG} --out OUT", fresh=False) == expected, how
        print(f"{how}: {ranks} ranks ended in {took:.1f} s, {later} went on to the same bytes", flush=True)


def refused(bench):
    """Ranks that do not have the same work, and an error of one rank alone."""
    folder, mpirun = bench.folder, ["mpirun", "--oversubscribe"]
    other = folder / "elsewhere"
    other.mkdir()
    for name in ("digits", "base"):
        shutil.copytree(folder / name, other / name)
    line = [bench.program, *"eval --model base --data digits/test.safetensors --device cpu --threads 1".split()]
    here = [*mpirun, "-n", "1", "-wdir", str(folder), *line, ":", "-n", "1", "-wdir", str(other), *line]
    broken = other / "digits/test.safetensors"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    bench.ends(bench.start(here), ["rank 1 has `digits/test.safetensors`:", "do not have the same work"])
    shutil.copyfile(bench.program, other / "scrubjay")
    with open(other / "scrubjay", "ab") as program:
        program.write(b" ")
    (other / "scrubjay").chmod(0o755)
    builds = [*mpirun, "-n", "1", *line, ":", "-n", "1", str(other / "scrubjay"), *line[1:]]
    bench.ends(bench.start(builds), ["rank 1 has the program"])
    bench.ends(bench.start([*mpirun, "-n", "2", *line, ":", "-n", "1", *line, "--json"]), ["the arguments"])
    bench.ends(bench.launch(2, f"train --arch mlp:4 {DATA} --out one.safetensors/out"), ["one.safetensors/out"])
    bench.ends(bench.launch(3, "eval --model base --data gone.safetensors"), ["gone.safetensors"])
    bench.ends(bench.start([*mpirun, "-n", "2", bench.program, "demo"]), ["not shared between ranks"])
    # A fault in the middle of a long file is not seen before the ranks begin; rank 1 finds it alone, and rank 0 hears of it.
    lines = ["a,b,c", *(f"{i % 1000 + 1000},{i * 37 % 1009 + 1000},{i * 91 % 1013 + 1000}" for i in range(160000))]
    (folder / "long.csv").write_text("\n".join(lines))
    lines[80000] = lines[80000][:2] + "," + lines[80000][3:]
    (other / "long.csv").write_text("\n".join(lines))
    line = [bench.program, *"foci long.csv --target c --max-features 1 --device cpu --threads 1".split()]
    alone = [*mpirun, "-n", "1", "-wdir", str(folder), *line, ":", "-n", "1", "-wdir", str(other), *line]
    bench.ends(bench.start(alone), ["rank 1: long.csv", "80001"])
    print("other data, other builds, other arguments, a folder that cannot be written, a fault of one rank: refused, with the reason")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--torchrun", help="the torchrun that starts the ranks; by default mpirun does")
    parser.add_argument("--ranks", default="1,2,3,4", help="by default 1,2,3,4")
    parser.add_argument("--only", help="one of: " + ", ".join(COMMANDS) + "; or `ends`: what is killed and refused")
    args = parser.parse_args()
    if os.geteuid() == 0:
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(str(args.program.resolve()), Path(folder), args.torchrun)
        prepare(bench)
        for name, line in COMMANDS.items():
            if args.only in (None, name):
                expected = bench.result(0, line)
                for ranks in map(int, args.ranks.split(",")):
                    found = bench.result(ranks, line)
                    assert found == expected, f"{name} with {ranks} ranks differs: {differs(found, expected)}"
                print(f"{name}: the same", flush=True)
        if args.only in (None, "ends") and not args.torchrun:
            stopped(bench, bench.result(0, f"{LONG} --out OUT"))
            refused(bench)


def differs(found, expected):
    if found[0] != expected[0]:
        return f"exit {found[0]}, not {expected[0]}"
    names = [name for name in found[2].keys() | expected[2].keys() if found[2].get(name) != expected[2].get(name)]
    return f"the files {names}" if names else "standard output"


if __name__ == "__main__":
    main()
