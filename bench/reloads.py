"""What 50 busy and 1,000 idle connections feel of a reload a second."""
import json, os, subprocess, time

from server import BIN, Plain, ROUNDS, show

SECONDS = 20


def turn(server, reloading):
    """One run of bench/src/bin/busy.rs: what its connections felt."""
    busy = subprocess.Popen([os.path.join(BIN, "busy"), server.address, "50", "1000", str(SECONDS)],
                            stdout=subprocess.PIPE, text=True)
    while reloading and busy.poll() is None:
        server.command("reload")
        time.sleep(1)
    return json.loads(busy.communicate()[0])


def under_reloads():
    server = Plain()
    turns = {False: [], True: []}
    for reloading in (False, True) * ROUNDS:
        turns[reloading].append(turn(server, reloading))
    server.stop()
    for reloading, name in ((False, "without reloads"), (True, "with a reload a second")):
        felt = turns[reloading]
        print(f"50 busy + 1,000 idle, {SECONDS} s a turn, {name}:")
        show("    answers", [it["answers"] / SECONDS / 1000 for it in felt], "k/s")
        for key, what in (("p50_us", "p50"), ("p99_us", "p99"), ("longest_us", "longest"),
                          ("silence_us", "longest time without any answer (goal: 100)")):
            show(f"    {what}", [it[key] / 1000 for it in felt], "ms")
        print(f"    failed: {sum(it['failed'] for it in felt)}; idle connections that answer at "
              f"the end, of 1,000: {min(it['idle_alive'] for it in felt)}")
    show("p99, with to without (goal: at most 1.5)",
         [it["p99_us"] / without["p99_us"] for it, without in zip(turns[True], turns[False])])
