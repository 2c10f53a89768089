"""Hands 10,000 idle kept-alive connections over: how long it takes, and what it costs both sides."""
import os, resource, socket, time

from server import Plain, ROUNDS, show

CONNECTIONS = 10_000
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def cpu_us(pid):
    """CPU time of a process so far, in microseconds; None when it is gone."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return sum(int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
                   for task in tasks) / 1000
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_gone(pid):
    """Whether a process has ended, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def connect(address):
    host, port = address.rsplit(":", 1)
    connections = []
    for _ in range(CONNECTIONS):
        connections.append(socket.create_connection((host, int(port))))
        connections[-1].sendall(REQUEST)
        connections[-1].recv(65536)
    return connections


def answered(connections):
    for connection in connections:
        connection.sendall(REQUEST)
    return sum(connection.recv(65536).startswith(b"HTTP/1.1 200") for connection in connections)


def until_gone(pids):
    """Waits for processes to end; gives the CPU time that each had in the end."""
    last, living = {}, set(pids)
    while living:
        for pid in list(living):
            now = cpu_us(pid)
            if now is None or is_gone(pid):
                living.discard(pid)
            else:
                last[pid] = now
        time.sleep(0.001)
    return last


def handover():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    server = Plain("server.max_connection=100000", f"server.open_files={2 * CONNECTIONS}")
    connections = connect(server.address)
    whole, after, old_us, new_us, alive = [], [], [], [], []
    for _ in range(ROUNDS):
        old = server.pids("worker")
        before = {pid: cpu_us(pid) for pid in old}
        began = time.perf_counter()
        server.command("reload")
        returned = time.perf_counter()
        at_the_end = until_gone(old)
        ended = time.perf_counter()
        whole.append((ended - began) * 1000)
        after.append((ended - returned) * 1000)
        old_us.append(sum(at_the_end.get(pid, before[pid]) - before[pid] for pid in old) / CONNECTIONS)
        # All that the new ones have done in their lives, their start included.
        new = [pid for pid in server.pids("worker") if pid not in old]
        new_us.append(sum(cpu_us(pid) for pid in new) / CONNECTIONS)
        alive.append(answered(connections))
    held = [it["connections"] for it in server.status()["processes"] if it["role"] == "worker"]
    server.stop()
    show("10,000 idle: from reload to the last one's arrival (goal: 500)", whole, "ms")
    show("  of which after reload has returned", after, "ms")
    show("  CPU a connection, old workers", old_us, "us")
    show("  CPU a connection, new workers with their start", new_us, "us")
    show("  CPU a connection, together (goal: at most 40)",
         [one + other for one, other in zip(old_us, new_us)], "us")
    print(f"  that answer afterwards, of 10,000: {min(alive)}; shares of the workers: {held}")
