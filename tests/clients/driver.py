#!/usr/bin/env python3
"""Runs the suites of foreign clients, each against a fresh server that it may have killed and restarted.

    driver.py --server PATH [--first-port N] NAME=COMMAND...

PATH is a `quorate` or an `etcd`: both take the same flags. COMMAND is run with the endpoint
(HOST:PORT) as its last argument and speaks the protocol of README.md on its standard output:
`ok CLAIM` for each claim that holds, `RESTART` to have the server killed with SIGKILL and started
again, `DONE` at the end. Ends with 0 if every suite said DONE and ended with 0.
"""

import argparse
import os
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

SUITE_SECONDS_MAX = 150
START_SECONDS_MAX = 60
POLL_SECONDS = 0.02
TAIL_LINES = 15


class Failure(Exception):
    """A suite or its server did not do what it must; the text says what."""


class Server:
    """One member on its own ports and data directory, started as often as asked."""

    def __init__(self, program, first_port, folder):
        self.program = program
        self.data_dir = os.path.join(folder, "data")
        self.log_path = os.path.join(folder, "server.log")
        self.log = open(self.log_path, "ab")
        self.port, self.peer_port = free_ports(first_port)
        self.process = None
        self.restarts = 0

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        client, peer = f"http://{self.endpoint}", f"http://127.0.0.1:{self.peer_port}"
        command = [
            self.program,
            "--name=default",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.is_healthy():
            if self.process.poll() is not None:
                raise Failure(f"the server ended with {self.process.returncode} at its start")
            if time.monotonic() > deadline:
                raise Failure(f"the server was not healthy within {START_SECONDS_MAX} s")
            time.sleep(POLL_SECONDS)

    def is_healthy(self):
        try:
            with urllib.request.urlopen(f"http://{self.endpoint}/health", timeout=5) as reply:
                return b'"true"' in reply.read()
        except (urllib.error.URLError, OSError):
            return False

    def kill(self):
        """Kills the server; says how it had ended if it was gone already."""
        if self.process is None:
            return None
        ended = self.process.poll()
        if ended is None:
            self.process.kill()
            self.process.wait()
        self.process = None
        return ended

    def restart(self):
        """Kills the server where it stands and starts it again; returns when it serves."""
        ended = self.kill()
        if ended is not None:
            raise Failure(f"the server had ended by itself with {ended}")
        self.start()
        self.restarts += 1

    def close(self):
        self.kill()
        self.log.close()


class Suite:
    """One running suite: its lines arrive in a queue, None at the end."""

    def __init__(self, command, endpoint, folder):
        self.error_path = os.path.join(folder, "suite.log")
        self.errors = open(self.error_path, "ab")
        self.process = subprocess.Popen(
            [*command, endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            errors="replace",
            cwd=folder,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def answer(self, word):
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: its lines will say so

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.errors.close()


def free_ports(first):
    """Two ports from `first` on that nobody listens on."""
    found = []
    for port in range(first, first + 100):
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == 2:
            return found
    raise Failure(f"no two free ports from {first} on")


def follow(suite, server, claims):
    """Reads the suite's lines to their end and serves what they ask for."""
    deadline = time.monotonic() + SUITE_SECONDS_MAX
    done = False
    while True:
        try:
            line = suite.lines.get(timeout=max(deadline - time.monotonic(), 0.001))
        except queue.Empty:
            raise Failure(f"the suite was not done within {SUITE_SECONDS_MAX} s") from None
        if line is None:
            break
        if line.startswith("ok "):
            claims.append(line[3:])
            print(f"   {line}", flush=True)
        elif line == "RESTART":
            server.restart()
            suite.answer("RESTARTED")
        elif line == "DONE":
            done = True
        else:
            print(f"   | {line}", flush=True)
    code = suite.process.wait(timeout=max(deadline - time.monotonic(), 1))
    if code != 0:
        raise Failure(f"the suite ended with {code}")
    if not done or not claims:
        raise Failure("the suite ended before it was done")
    if server.restarts == 0:
        raise Failure("the suite never had the server restarted")
    if server.process.poll() is not None:
        raise Failure(f"the server ended by itself with {server.process.returncode}")


def run(name, command, options):
    """Runs one suite in a folder of its own; returns its row of the table."""
    print(f"== {name}", flush=True)
    folder = tempfile.mkdtemp(prefix=f"clients-{name}-")
    try:
        return run_in(folder, name, command, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_in(folder, name, command, options):
    server = suite = None
    claims, result = [], "passed"
    began = time.monotonic()
    try:
        server = Server(options.server, options.first_port, folder)
        server.start()
        suite = Suite(command, server.endpoint, folder)
        follow(suite, server, claims)
    except (Failure, OSError, subprocess.TimeoutExpired) as failure:
        result = "FAILED"
        print(f"   {name}: {failure}", flush=True)
    finally:
        for part in (suite, server):
            if part is not None:
                part.close()
    seconds = time.monotonic() - began
    if result != "passed":
        for log in ("suite.log", "server.log"):
            show_tail(os.path.join(folder, log))
    return name, len(claims), server.restarts if server else 0, seconds, result


def show_tail(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            lines = log.read().splitlines()[-TAIL_LINES:]
    except FileNotFoundError:
        return
    print(f"   the end of {os.path.basename(path)}:", flush=True)
    for line in lines:
        print(f"   | {line[:200]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="the binary of the server")
    parser.add_argument("--first-port", type=int, default=23600, help="where free ports are looked for")
    parser.add_argument("suites", nargs="+", metavar="NAME=COMMAND")
    options = parser.parse_args()
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    rows = []
    for suite in options.suites:
        name, _, command = suite.partition("=")
        rows.append(run(name, shlex.split(command), options))
    print(f"{'suite':<10} {'checks':>6} {'restarts':>8} {'seconds':>8}  result")
    for name, claims, restarts, seconds, result in rows:
        print(f"{name:<10} {claims:>6} {restarts:>8} {seconds:>8.1f}  {result}")
    passed = sum(row[1] for row in rows)
    failed = sum(row[-1] != "passed" for row in rows)
    print(f"clients: {passed} passed, {failed} failed")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
