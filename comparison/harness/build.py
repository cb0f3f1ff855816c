"""Builds what a comparison measures and what it measures with."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def coracle() -> Path:
    """Builds the program of this tree for release."""
    print("building coracle", file=sys.stderr, flush=True)
    done = subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit("error: coracle cannot be built; --coracle FILE measures a program that is there")
    return target_directory() / "release" / "coracle"


def c_program(name: str) -> Path:
    """Builds a C program of this directory."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        sys.exit("error: the load generator needs a C compiler; on Debian: apt install gcc libc6-dev")
    program = target_directory() / "bench" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    source = ROOT / "comparison" / f"{name}.c"
    command = [*shlex.split(compiler), "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"error: {source} cannot be built")
    return program


def target_directory() -> Path:
    """Returns the directory for what is built."""
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def commit() -> str:
    """Returns the commit of the tree, and whether the tree has changed since."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""
