#!/usr/bin/env python3
"""Kills `train`, `scrub`, `serve`, `verify` and `foci --graph` at random points, fills their disk, and takes their folder's permission.

    scripts/interrupted.py target/release/scrubjay [--kills 500] [--seed 0] [--only NAME]

Every command runs once undisturbed. Then it is killed, at a point drawn evenly from the time it takes, and started again,
until it was killed often enough; after every kill each file that is there must be whole, and records that were complete must
be there still. The last run goes to its end, and must leave the same bytes as the undisturbed one, times apart. The same holds
where a file may have no more than so many bytes (RLIMIT_FSIZE, for sizes up to that of the largest file that a kill left, stages of
a hold among them), where the folder lies on a full tmpfs (as root, where mounting is allowed), and where the folder cannot be
written: the command then ends with 1 and an error that names a file, and leaves no part of one. At last it runs under other locales, in another time zone, and with a clock
of the system that jumps by years with every look at it (by a library that is compiled and loaded before others).
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

DATA = "--data ../digits/train.safetensors"
FORGET = "--forget ../digits/forget.txt"
MODELS = "--before ../base --after ../after --reference ../retrained/seed-0 ../retrained/seed-1 ../retrained/seed-2"
COMMANDS = {
    "train": f"train --arch mlp:12 --epochs 6 --keep-epochs 2,4 {DATA} --out out",
    "scrub": f"scrub --model ../base {DATA} --forget 0-11 --batch 2 --method lcodec --wrong-labels --perturbations 60 --gate 100 --delta-file --out out",
    "hold": f"scrub --model ../base {DATA} {FORGET} --val ../digits/val.safetensors --method hold --batch 9 --proxy-epochs 3 --hold-epochs 3 --gate 100 --out out",
    "serve": f"serve --model ../base {DATA} --val ../digits/val.safetensors --spool out --once --batch-count 2 --keep 9 --proxy-epochs 3 --hold-epochs 3 --gate 100",
    "verify": f"verify {MODELS} {DATA} {FORGET} --test ../digits/test.safetensors --out out/verify.json --html out/verify.html",
    "foci": "foci ../table.csv --graph --dot out/graph.dot --resume out/graph.jsonl",
}
# What `serve` finds in its queue: two batches, and one request that it refuses.
REQUESTS = {"a": "0-9", "b": "10-17,25", "c": "30-35", "d": "40,41", "e": "0-5000"}
CODES = (0, 3)  # done, or done and flagged
JUMPING = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static unsigned looks;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec += (__atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) % 3 - 1) * 600000000L;
    return result;
}
"""
PLACES = [{"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"}, {"LANG": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"}, {"LC_ALL": "C", "TZ": "EST5EDT"}]
TIMES = ("seconds", "received", "finished")


def timeless(value):
    """A JSON value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def content(path):
    """The part of a file that is to be the same in every run; raises where the file is not whole."""
    data = path.read_bytes()
    if path.suffix == ".json":
        return timeless(json.loads(data))
    if path.suffix == ".jsonl":  # the order of columns is open; the last line may be incomplete
        return sorted(json.dumps(timeless(json.loads(line))) for line in data.split(b"\n")[:-1])
    if path.suffix == ".html":  # has times
        assert data.rstrip().endswith(b"</html>"), f"{path} is not whole"
        return None
    return data


def files(folder):
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: content(path) for name, path in found.items() if not passing(name)}


def passing(name):
    """What is gone at the end: stages of a hold, parts of files; of a server the requests that wait, the batch that it works on, and
    the records of a version's run."""
    served = name.startswith(("incoming/", "working/")) or (name.startswith("versions/") and name.endswith(".jsonl"))
    return served or name.endswith((".stage", ".part"))


class Task:
    def __init__(self, program, folder, name):
        self.name, self.folder, self.line = name, folder, [program, *COMMANDS[name].split(), "--threads", "2", "--device", "cpu"]
        self.out = folder / "out"
        self.largest = self.all = 0  # bytes of a file, and of all of them, that were seen

    def fresh(self):
        if self.out.is_mount():
            subprocess.run(["umount", self.out], check=True)
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        self.fill()

    def fill(self):
        """What the command finds in its folder."""
        if self.name == "serve":
            (self.out / "incoming").mkdir()
            for age, (name, forget) in enumerate(reversed(REQUESTS.items())):  # the order in which they came
                path = self.out / "incoming" / f"{name}.json"
                path.write_text(json.dumps({"version": 1, "id": name, "forget": forget}))
                os.utime(path, (1.7e9 - age, 1.7e9 - age))

    def weigh(self):
        sizes = [path.stat().st_size for path in self.out.rglob("*") if path.is_file()]
        self.largest, self.all = max([self.largest, *sizes]), max(self.all, sum(sizes))

    def start(self, **options):
        return subprocess.Popen(self.line, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def undisturbed(self):
        self.fresh()
        begun = time.time()
        run = self.start()
        _, err = run.communicate()
        assert run.returncode in CODES, f"{self.name}: {run.returncode} {err}"
        self.seconds, self.whole = time.time() - begun, files(self.out)
        self.weigh()
        assert not list(self.out.rglob("*.part"))

    def check(self, what, before=None):
        """Every file is whole, and no record is lost."""
        now = files(self.out)
        self.weigh()
        for name, found in now.items():
            expected = self.whole.get(name)
            if name.endswith(".jsonl"):
                assert set(found) <= set(expected), f"{what}: {name} has other records"
                lost = set((before or {}).get(name, [])) - set(found)
                assert not lost, f"{what}: {name} lost {len(lost)} records"
            else:
                assert name in self.whole and found == expected, f"{what}: {name} differs"
        return now

    def finish(self, what):
        run = self.start()
        _, err = run.communicate()
        assert run.returncode in CODES, f"{what}, then {self.name}: {run.returncode} {err}"
        now = self.check(what)
        assert now.keys() == self.whole.keys(), f"{what}: {sorted(now)} in place of {sorted(self.whole)}"
        left = [str(path) for path in self.out.rglob("*.part")]
        assert not left, f"{what}: {left} were left"

    def killed(self, times, draw):
        kills = 0
        while kills < times:
            self.fresh()
            before = None
            while kills < times:
                run = self.start(start_new_session=True)
                try:
                    run.communicate(timeout=draw.uniform(0, self.seconds))
                    break  # it was faster than that
                except subprocess.TimeoutExpired:
                    os.killpg(run.pid, signal.SIGKILL)
                    run.communicate()
                kills += 1
                before = self.check(f"{self.name}: kill {kills}", before)
            self.finish(f"{self.name}: {kills} kills")
        return kills

    def refused(self, what, **options):
        """One run that fails, or that nothing hindered."""
        run = self.start(**options)
        _, err = run.communicate()
        if run.returncode in CODES:
            return False
        assert run.returncode == 1 and "panicked" not in err, f"{what}: {run.returncode} {err}"
        message = err.strip().split("\n")[-1]
        assert re.search(r"out\b", message), f"{what}: no file is named in: {message}"
        self.check(what)
        left = [str(path) for path in self.out.rglob("*.part")]
        assert not left, f"{what}: {left} were left"
        self.messages.add(re.sub(r"\d+", "N", message))
        return True

    def full(self):
        """Files that may grow to so many bytes only."""
        self.messages, refusals = set(), 0
        sizes = sorted({0, 1, 100, *(self.largest * share // 6 for share in range(1, 7))})

        def limit(size):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        for size in sizes:
            self.fresh()
            refusals += self.refused(f"{self.name}: at most {size} bytes a file", preexec_fn=lambda: limit(size))
            self.finish(f"{self.name}: after at most {size} bytes a file")
        return refusals

    def full_disk(self):
        """A tmpfs too small for the files."""
        refusals = 0
        remount = lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", self.out], check=True)
        for share in (1, 3, 5, 7):
            self.fresh()
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.out], capture_output=True).returncode != 0:
                return None
            try:
                self.fill()
                pages = 4096 * sum(path.is_file() for path in self.out.rglob("*"))
                size = pages + self.all * share // 8 // 4096 * 4096
                if size == 0:  # no limit
                    continue
                remount(size)
                refusals += self.refused(f"{self.name}: a disk of {size} bytes")
                remount("64m")
                self.finish(f"{self.name}: after a disk of {size} bytes")
            finally:
                subprocess.run(["umount", self.out], check=True)
        return refusals

    def elsewhere(self, clock):
        """Other locales and time zones, and a clock that jumps."""
        for place in [*PLACES, {"LD_PRELOAD": str(clock)}]:
            self.fresh()
            run = self.start(env={**os.environ, **place})
            _, err = run.communicate()
            assert run.returncode in CODES, f"{self.name} with {place}: {run.returncode} {err}"
            now = self.check(f"{self.name} with {place}")
            assert now.keys() == self.whole.keys(), f"{self.name} with {place}: {sorted(now)} in place of {sorted(self.whole)}"

    def read_only(self):
        if os.geteuid() == 0:
            self.fresh()
            if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", self.out], capture_output=True).returncode != 0:
                return None
        else:
            self.fresh()
            self.out.chmod(0o555)
        try:
            assert self.refused(f"{self.name}: a folder that cannot be written"), f"{self.name}: wrote into it"
        finally:
            if os.geteuid() == 0:
                subprocess.run(["umount", self.out], check=True)
            else:
                self.out.chmod(0o755)
        self.finish(f"{self.name}: after a folder that could not be written")
        return 1


def prepare(program, folder):
    """Data, models and a table for the commands."""
    def run(line):
        subprocess.run([program, *line.split()], cwd=folder, check=True, capture_output=True)

    run("demo --data-out digits")
    train = "train --arch mlp:12 --epochs 8 --data digits/train.safetensors --device cpu --threads 2"
    run(f"{train} --out base")
    run(f"{train} --out retrained --exclude digits/forget.txt --seeds 3")
    run("scrub --model base --data digits/train.safetensors --forget digits/forget.txt --val digits/val.safetensors --gate 100 --out after")
    draw = random.Random(1)
    rows = [[draw.gauss(0, 1) for _ in range(6)] for _ in range(400)]
    text = "a,b,c,d,e,f,g,h,i,j\n" + "".join(",".join(f"{v:.5f}" for v in [*r, r[0] + r[1], r[2] * r[3], r[4] - r[0], abs(r[5])]) + "\n" for r in rows)
    (folder / "table.csv").write_text(text)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(COMMANDS))
    args = parser.parse_args()
    program, draw = str(Path(args.program).resolve()), random.Random(args.seed)
    names = [args.only] if args.only else list(COMMANDS)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        prepare(program, folder)
        clock = folder / "jumping.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", clock, "-ldl"], input=JUMPING, text=True, check=True)
        for i, name in enumerate(names):
            (folder / name).mkdir()
            task = Task(program, folder / name, name)
            task.undisturbed()
            share = args.kills // len(names) + (i < args.kills % len(names))
            kills, full = task.killed(share, draw), task.full()
            disk, read_only = task.full_disk(), task.read_only()
            task.elsewhere(clock)
            shown = lambda count: "not tried" if count is None else count
            print(f"{name}: {task.seconds:.2f} s; {kills} kills; {full} refusals for the size of files, {shown(disk)} for a full disk, {shown(read_only)} for a read-only folder", flush=True)
            for message in sorted(task.messages):
                print(f"    {message}")


if __name__ == "__main__":
    main()
