#!/usr/bin/env python3
"""Measures a Shiftwork server beside bare hyper, and what its life costs. Needs wrk.

    cargo build --release -p shiftwork-bench && python3 bench/run.py [rounds] [part ...]

Parts: requests, life, memory, reloads, handover, upgrade; all of them if none is named.
Turns alternate within one run; every figure is a median with its lowest and highest value.
"""
import shutil, sys

from deaf import deaf
from handover import handover
from life import life, memory
from reloads import under_reloads
from beside import beside

PARTS = {"requests": beside, "life": life, "memory": memory, "reloads": under_reloads,
         "handover": handover, "upgrade": deaf}

if __name__ == "__main__":
    wanted = [word for word in sys.argv[1:] if not word.isdigit()] or list(PARTS)
    if unknown := [word for word in wanted if word not in PARTS]:
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if "requests" in wanted and not shutil.which("wrk"):
        sys.exit("wrk is not installed; Debian has it under that name")
    for part in wanted:
        PARTS[part]()
