"""Plain text over kept-alive connections, beside bare hyper; and the price of hand-over alone."""
import math, os, random, re, signal, statistics, subprocess

from server import BIN, Plain, ROUNDS, cpu_seconds, show


class Bare:
    """bench/src/bin/bare.rs: hyper in two processes."""

    def __init__(self):
        self.process = subprocess.Popen([os.path.join(BIN, "bare"), "2"],
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
    bare, server = Bare(), Plain()
    workers = server.pids("worker")
    turns = {"bare": [], "ours": []}
    contestants = [("bare", bare.address, bare.pids), ("ours", server.address, workers)]
    try:
        # Many short turns in an order drawn anew each time: what else the machine does falls on both
        # alike, and so does how the kernel deals 64 connections to two sockets.
        for _ in range(20 * ROUNDS):
            for name, address, pids in random.sample(contestants, 2):
                turns[name].append(wrk(address, pids))
    finally:
        server.stop()
        bare.stop()

    def against_bare(title, what):
        ratios = [ours[what] / bare[what] for ours, bare in zip(turns["ours"], turns["bare"])]
        show(title, ratios)
        error = 1.25 * statistics.stdev(ratios) / math.sqrt(len(ratios))
        print(f"    standard error of that median: {error:.3f}", flush=True)

    show("bare hyper, two processes", [rate / 1000 for rate, _ in turns["bare"]], "k/s")
    show("Shiftwork, two workers", [rate / 1000 for rate, _ in turns["ours"]], "k/s")
    against_bare("requests, Shiftwork to bare (goal: at least 0.95)", 0)
    show("bare hyper, CPU a request", [cost for _, cost in turns["bare"]], "us")
    show("Shiftwork, CPU a request", [cost for _, cost in turns["ours"]], "us")
    against_bare("CPU a request, Shiftwork to bare (goal: at most 1.10)", 1)
    hand_over(statistics.median(cost for _, cost in turns["bare"]) * 1000)


def hand_over(bare_ns):
    """bench/src/bin/price.rs, beside the CPU time of a request to bare hyper over TCP."""
    out = subprocess.run([os.path.join(BIN, "price"), str(2000 * ROUNDS)],
                         capture_output=True, text=True, check=True).stdout
    print(out, end="")
    price = float(re.search(r"hand-over alone +(-?[0-9]+) ns", out)[1])
    print(f"hand-over alone, of a request to bare hyper (goal: at most 2 %): {price / bare_ns:.1%}")
