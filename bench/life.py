"""What the life of a server costs: start, reload, a death, and memory."""
import os, signal, time

from server import Plain, ROUNDS, show


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
