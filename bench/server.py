"""A server to measure, and how figures are shown."""
import json, os, shutil, statistics, subprocess, sys, tempfile, time

ROUNDS = next((int(word) for word in sys.argv[1:] if word.isdigit()), 5)
BIN = os.path.join(os.path.dirname(__file__), "..", "target", "release")
TICK = os.sysconf("SC_CLK_TCK")


def show(name, values, unit=""):
    middle = statistics.median(values)
    print(f"{name:58} {middle:10.2f} {unit:6} ({min(values):.2f} to {max(values):.2f})", flush=True)
    return middle


class Plain:
    """A Shiftwork server of bench/src/bin/plain.rs, in the background."""

    def __init__(self, *settings, **environment):
        self.folder = tempfile.mkdtemp(prefix="shiftwork-bench-")
        self.base = [os.path.join(BIN, "plain"), "--set", f"server.run_dir={self.folder}"]
        for setting in settings:
            self.base += ["--set", setting]
        began = time.perf_counter()
        subprocess.run(self.base + ["start", "-d"], check=True, stdout=subprocess.DEVNULL,
                       cwd=self.folder, env={**os.environ, **environment})
        self.start_ms = (time.perf_counter() - began) * 1000
        self.address = self.status()["listeners"][0]["address"]

    def command(self, *words):
        return subprocess.run(self.base + list(words), check=True, capture_output=True, text=True)

    def status(self):
        return json.loads(self.command("status", "--json").stdout)

    def pids(self, role=None):
        return [it["pid"] for it in self.status()["processes"] if role in (None, it["role"])]

    def stop(self):
        self.command("stop")
        shutil.rmtree(self.folder)


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK
