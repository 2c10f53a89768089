#!/usr/bin/env python3
"""Measures a Shiftwork server beside bare hyper, and what its life costs. Needs wrk.

    cargo build --release -p shiftwork-bench && python3 bench/run.py [rounds] [part ...]

Parts: requests, life, memory, reloads, handover; all of them if none is named.
Turns alternate within one run; every figure is a median with its lowest and highest value.
"""
import os, shutil, signal, socket, subprocess, sys, threading, time

from handover import handover
from server import BIN, Plain, ROUNDS, cpu_seconds, show


def wrk(address, pids, seconds=3):
    before = cpu_seconds(pids)
    out = subprocess.run(["wrk", "-t1", "-c64", f"-d{seconds}s", f"http://{address}/"],
                         capture_output=True, text=True, check=True).stdout
    requests = int(next(line for line in out.splitlines() if "requests in" in line).split()[0])
    return requests / seconds, (cpu_seconds(pids) - before) / requests * 1e6


def plain_text():
    bare = subprocess.Popen([os.path.join(BIN, "bare"), "2"], stdout=subprocess.PIPE, text=True)
    address, *pids = bare.stdout.readline().split()
    pids = [int(pid) for pid in pids]
    server = Plain()
    workers = server.pids("worker")
    rates, costs, theirs, ours = [], [], [], []
    try:
        for _ in range(ROUNDS):
            rate_bare, cost_bare = wrk(address, pids)
            rate, cost = wrk(server.address, workers)
            theirs.append((rate_bare, cost_bare))
            ours.append((rate, cost))
            rates.append(rate / rate_bare)
            costs.append(cost / cost_bare)
    finally:
        server.stop()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        bare.wait()
    show("bare hyper, two processes", [rate / 1000 for rate, _ in theirs], "k/s")
    show("Shiftwork, two workers", [rate / 1000 for rate, _ in ours], "k/s")
    show("requests, Shiftwork to bare (goal: at least 0.95)", rates)
    show("bare hyper, CPU a request", [cost for _, cost in theirs], "us")
    show("Shiftwork, CPU a request", [cost for _, cost in ours], "us")
    show("CPU a request, Shiftwork to bare (goal: at most 1.10)", costs)


def life():
    starts, reloads, respawns = [], [], []
    for _ in range(ROUNDS):
        server = Plain()
        starts.append(server.start_ms)
        began = time.perf_counter()
        server.command("reload")
        reloads.append((time.perf_counter() - began) * 1000)
        while len(server.pids("worker")) > 2:
            pass
        before = set(server.pids("worker"))
        victim = min(before)
        began = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        while True:
            now = [it for it in server.status()["processes"]
                   if it["role"] == "worker" and it["state"] == "serving"]
            if len(now) == 2 and {it["pid"] for it in now} != before:
                break
        respawns.append((time.perf_counter() - began) * 1000)
        server.stop()
    show("start -d, from exec to ready", starts, "ms")
    show("reload, from command to committed", reloads, "ms")
    show("worker killed, until its successor serves (polled)", respawns, "ms")


def pss(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total / 1024


def memory():
    idle, loaded = [], []
    for _ in range(ROUNDS):
        server = Plain()
        idle.append(pss(server.pids()))
        server.stop()
        server = Plain(BENCH_PRELOAD_MB="40")
        loaded.append(pss(server.pids()))
        server.stop()
    low = show("idle, 2 + 2 workers, all processes (goal: at most 10)", idle, "MB PSS")
    show("40 MB preloaded add (goal: at most 45)", [it - low for it in loaded], "MB PSS")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def client(address, stop, times, counts):
    host, port = address.rsplit(":", 1)
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    connection = socket.create_connection((host, int(port)))
    while not stop.is_set():
        began = time.perf_counter()
        try:
            connection.sendall(request)
            answer = connection.recv(65536)
        except OSError:
            answer = b""
        if not answer.startswith(b"HTTP/1.1 200"):
            counts["failed"] += 1
            return
        times.append((time.perf_counter() - began) * 1000)


def under_reloads(seconds=5):
    turns = {False: [], True: []}
    server = Plain()
    host, port = server.address.rsplit(":", 1)
    idle = [socket.create_connection((host, int(port))) for _ in range(1000)]
    for connection in idle:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        connection.recv(65536)
    failed = 0
    for reloading in (False, True) * ROUNDS:
        stop, times, counts = threading.Event(), [], {"failed": 0}
        threads = [threading.Thread(target=client, args=(server.address, stop, times, counts))
                   for _ in range(50)]
        for thread in threads:
            thread.start()
        for _ in range(seconds):
            if reloading:
                server.command("reload")
            time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
        failed += counts["failed"]
        turn = (len(times) / seconds, percentile(times, .5), percentile(times, .99), max(times))
        turns[reloading].append(turn)
    for reloading, name in ((False, "without reloads"), (True, "with a reload a second")):
        print(f"50 busy + 1,000 idle, {name}:")
        rates, middles, nearly_all, longest = zip(*turns[reloading])
        show("    answers", [rate / 1000 for rate in rates], "k/s")
        show("    p50", middles, "ms")
        show("    p99", nearly_all, "ms")
        show("    longest", longest, "ms")
    show("p99, with to without", [it[2] / without[2] for it, without in
                                  zip(turns[True], turns[False])])
    print(f"failed requests of all turns: {failed}")
    alive = 0
    for connection in idle:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        alive += connection.recv(65536).startswith(b"HTTP/1.1 200")
    print(f"idle connections that still answer: {alive} of 1000")
    server.stop()


PARTS = {"requests": plain_text, "life": life, "memory": memory, "reloads": under_reloads,
         "handover": handover}

if __name__ == "__main__":
    wanted = [word for word in sys.argv[1:] if not word.isdigit()] or list(PARTS)
    if unknown := [word for word in wanted if word not in PARTS]:
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if "requests" in wanted and not shutil.which("wrk"):
        sys.exit("wrk is not installed; Debian has it under that name")
    for part in wanted:
        PARTS[part]()
