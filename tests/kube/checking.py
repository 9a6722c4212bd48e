"""How something is found out: what must hold, what must come, what numbers and logs say."""

import collections
import http.client
import re
import threading
import time

ENDING = threading.Event()  # told to end, or too late


class Failed(Exception):
    """A check that does not hold; the text says what was found instead."""


def require(holds, text):
    if not holds:
        raise Failed(text)


def until(seconds, what, probe, every=0.2):
    """The first true answer of `probe`, which may fail meanwhile."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if answer := probe():
                return answer
        except (OSError, http.client.HTTPException, Failed) as error:
            last = error
        time.sleep(every)
    raise Failed(f"not within {seconds} s: {what}" + (f" ({last})" if last else ""))


def parse_metrics(text):
    lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in lines}


def total(metrics, name, **labels):
    """The sum over all series of `name` that carry these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for line, value in metrics.items()
        if line.partition("{")[0] == name and all(want in line for want in wanted)
    )


# What may or may not be said, whatever the server is.
CHANCE = (
    # The parts of a control plane start at once.
    r'Failed to ensure lease exists, will retry" err="namespaces',
    r'while syncing ConfigMap .* namespaces .* not found',
    # A call whose time was over while the server was kept down.
    r"DeadlineExceeded desc = latest balancer error: connection error",
    # A client of the API server went away while it was being told of an event.
    r'watch\.go:\d+\] "Unhandled Error" err="http2: stream closed"',
)


def log_classes(path):
    """Counts errors and warnings with everything taken out of them that differs from run to run."""
    classes = collections.Counter()
    for line in path.read_text(errors="replace").splitlines():
        if any(re.search(pattern, line) for pattern in CHANCE):
            continue
        if found := re.match(r"([EWF])\d{4} \S+ +\d+ ([\w.]+):\d+\] (.*)", line):
            classes[" ".join([found[1], found[2], normalised(found[3])])] += 1
        elif found := re.match(r'\{"level":"(warn|error|fatal|panic)".*?"msg":"(.*?)".*', line):
            error = re.search(r'"error":"(.*?)"', line)
            classes[f"{found[1]} {found[2]} {normalised(error[1]) if error else ''}"] += 1
        elif re.match(r"panic:|fatal error:", line):
            classes[line[:120]] += 1
    return classes


def normalised(text):
    for pattern, instead in (
        (r'\\"', "'"),
        # How a killed server's connection ends is chance.
        (r"read tcp [\d.:>-]+: read: connection reset by peer", "EOF"),
        (r"0x[0-9a-f]+|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b[0-9a-f]{16,}\b", "HEX"),
        (r"\d+(\.\d+)*", "N"),
        (r'"/[^" ]*"|(?<=[ (=:])/[\w./:-]+', "PATH"),
        (r"(?:kill|bulk|rolls|leased|coredns)[\w.-]*", "NAME"),
        (r"&[\w.]+\{.*", "VALUE"),
        # Which watches end after a kill is decided by when the last compaction was.
        (r"(?<=all watchers from cacher )\S+", "NAME"),
    ):
        text = re.sub(pattern, instead, text)
    return text[:200]
