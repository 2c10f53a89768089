"""Plain text over kept-alive connections, beside bare hyper; and the price of hand-over alone."""
import os, signal, subprocess

from server import BIN, Plain, ROUNDS, cpu_seconds, show


class Bare:
    """bench/src/bin/bare.rs: hyper in two processes, by itself or driven as a worker drives it."""

    def __init__(self, *words):
        self.process = subprocess.Popen([os.path.join(BIN, "bare"), "2", *words],
                                        stdout=subprocess.PIPE, text=True)
        self.address, *pids = self.process.stdout.readline().split()
        self.pids = [int(pid) for pid in pids]

    def stop(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def wrk(address, pids, seconds=1):
    """Requests a second, and the CPU time of the serving processes for each of them."""
    before = cpu_seconds(pids)
    out = subprocess.run(["wrk", "-t1", "-c64", f"-d{seconds}s", f"http://{address}/"],
                         capture_output=True, text=True, check=True).stdout
    requests = int(next(line for line in out.splitlines() if "requests in" in line).split()[0])
    return requests / seconds, (cpu_seconds(pids) - before) / requests * 1e6


def beside():
    bare, driven, server = Bare(), Bare("driven"), Plain()
    workers = server.pids("worker")
    turns = {"bare": [], "driven": [], "ours": []}
    try:
        # Many short turns: what else the machine does falls on all alike.
        for _ in range(8 * ROUNDS):
            turns["bare"].append(wrk(bare.address, bare.pids))
            turns["driven"].append(wrk(driven.address, driven.pids))
            turns["ours"].append(wrk(server.address, workers))
    finally:
        server.stop()
        bare.stop()
        driven.stop()

    def against_bare(name, what):
        return [turn[what] / bare[what] for turn, bare in zip(turns[name], turns["bare"])]

    show("bare hyper, two processes", [rate / 1000 for rate, _ in turns["bare"]], "k/s")
    show("Shiftwork, two workers", [rate / 1000 for rate, _ in turns["ours"]], "k/s")
    show("requests, Shiftwork to bare (goal: at least 0.95)", against_bare("ours", 0))
    show("bare hyper, CPU a request", [cost for _, cost in turns["bare"]], "us")
    show("Shiftwork, CPU a request", [cost for _, cost in turns["ours"]], "us")
    show("CPU a request, Shiftwork to bare (goal: at most 1.10)", against_bare("ours", 1))
    show("CPU a request, hyper driven for hand-over to bare (1.02)", against_bare("driven", 1))
