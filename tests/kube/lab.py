"""The lab's cluster on this machine, and the server that its API server stores everything in."""

import collections
import os
import pathlib
import re
import signal
import subprocess
import sys

from checking import parse_metrics, until

CHECKOUT = pathlib.Path(os.path.abspath(__file__)).parent.parent.parent
LAB = CHECKOUT.parent / "shared" / "kube" / "lab"
KEPT = pathlib.Path(os.environ.get("KUBE_LAB", pathlib.Path.home() / ".cache" / "kube-lab"))
STATE = KEPT / "state"
NETWORK = pathlib.Path("/run/netns/lab-cp")  # of the control plane, the server in it


def up(server, flags):
    """Starts a cluster of one node; returns what the lab said."""
    done = subprocess.run(
        [LAB, "up", "1"],
        env={**os.environ, "ETCD_BIN": server.binary, "APISERVER_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=180,
    )
    return done.returncode == 0, done.stdout + done.stderr


def down():
    """Ends everything that the lab started; it knows each process by its id."""
    subprocess.run([LAB, "down"], capture_output=True, timeout=90)


class Server:
    """The store that the lab started: killed, started again, and measured over all its lives."""

    def __init__(self, name, binary):
        self.name, self.binary = name, str(binary)
        self.cost = collections.Counter()
        self.calls = collections.Counter()

    def pid(self):
        return int((STATE / "run" / "cp.etcd.pid").read_text())

    def metrics(self):
        """Lines of /metrics as `name{labels}` and value; only the network of the cluster has them."""
        url = "http://127.0.0.1:2379/metrics"
        read = f"import urllib.request as r; print(r.urlopen('{url}', timeout=5).read().decode())"
        command = ["nsenter", f"--net={NETWORK}", sys.executable, "-c", read]
        return parse_metrics(subprocess.run(command, capture_output=True, text=True).stdout)

    def account(self):
        """Adds what this life used; called once at the end of each."""
        proc = pathlib.Path("/proc") / str(self.pid())
        ticks = proc.joinpath("stat").read_text().rsplit(")", 1)[1].split()[11:13]
        self.cost["CPU seconds"] += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        # Not `write_bytes`: that counts the whole folio of the page cache, up to 512 times too much.
        written = re.search(r"^wchar: (\d+)", proc.joinpath("io").read_text(), re.M)
        self.cost["MiB written"] += int(written[1]) / 2**20
        status = proc.joinpath("status").read_text()
        for field, name in (("VmHWM", "MiB resident, peak"), ("RssAnon", "MiB anonymous, at the end")):
            kib = int(re.search(rf"^{field}:\s+(\d+)", status, re.M)[1])
            peak = self.cost[name] if field == "VmHWM" else 0
            self.cost[name] = max(peak, kib / 1024)
        for line, value in self.metrics().items():
            if found := re.match(r'grpc_server_(\w+)_total\{.*grpc_method="(\w+)"', line):
                code = re.search(r'grpc_code="(\w+)"', line)
                self.calls[found[2], found[1], code[1] if code else ""] += value

    def kill(self):
        self.account()
        os.kill(self.pid(), signal.SIGKILL)
        until(5, "the killed server is gone", lambda: not alive(self.pid()), every=0.01)

    def start(self):
        """As the lab started it; the lab finds and ends it by the same file."""
        command = ["nsenter", f"--net={NETWORK}", self.binary, "--data-dir", STATE / "etcd"]
        with open(STATE / "log" / "cp.etcd.log", "ab") as log:
            child = subprocess.Popen(
                [*command, "--log-level", "warn"], stdout=log, stderr=log, start_new_session=True
            )
        (STATE / "run" / "cp.etcd.pid").write_text(str(child.pid))
        self.child = child  # waited for in `alive`, so that it is no zombie

    def data_mib(self):
        files = (file for file in (STATE / "etcd").rglob("*") if file.is_file())
        return sum(file.stat().st_blocks * 512 for file in files) / 2**20


def alive(pid):
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
