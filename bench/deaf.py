"""For how long the control socket gives no answer while master and manager are replaced."""
import os, socket, threading, time

from server import Plain, ROUNDS, show


def longest_answer(path, over):
    """Asks, in a row, what the master answers by itself. The longest wait, in milliseconds."""
    longest = 0.0
    while not over.is_set():
        began = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as asker:
            asker.connect(path)
            asker.sendall(b'{"verb":"nothing"}\n')
            while asker.recv(65536):
                pass
        longest = max(longest, (time.perf_counter() - began) * 1000)
    return longest


def deaf():
    server = Plain()
    path = os.path.join(server.folder, "plain.sock")
    waits = {"reload": [], "upgrade": []}
    for command in ("reload", "upgrade") * ROUNDS:
        over, found = threading.Event(), []
        asker = threading.Thread(target=lambda: found.append(longest_answer(path, over)))
        asker.start()
        time.sleep(0.1)
        server.command(command)
        over.set()
        asker.join()
        waits[command].append(found[0])
    server.stop()
    show("longest wait for the control socket in a reload", waits["reload"], "ms")
    show("  in an upgrade (goal: deaf for at most 5)", waits["upgrade"], "ms")
