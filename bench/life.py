"""What the life of a server costs: start, reload, a death, and memory."""
import os, signal, socket, time

from server import Plain, ROUNDS, show


def life():
    starts, reloads, respawns = [], [], []
    for _ in range(ROUNDS):
        server = Plain()
        starts.append(server.start_ms)
        began = time.perf_counter()
        server.command("reload")
        reloads.append((time.perf_counter() - began) * 1000)
        server.stop()
        respawns.append(respawn())
    show("start -d, from exec to ready", starts, "ms")
    show("reload, from command to committed", reloads, "ms")
    show("the only worker killed, until a new client is answered", respawns, "ms")


def respawn():
    """As a client sees it: the only worker dies, and a connection waits for its successor."""
    server = Plain("server.worker_num=1")
    host, port = server.address.rsplit(":", 1)
    [victim] = server.pids("worker")
    began = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = client.recv(4096)
    took = (time.perf_counter() - began) * 1000
    server.stop()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"a worker was killed, and a client that came then got {answer!r}")
    return took


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
