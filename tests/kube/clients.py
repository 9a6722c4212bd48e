"""Clients of the API server: one that asks, one that watches, writers, and an eye on the node."""

import base64
import collections
import concurrent.futures
import datetime
import http.client
import json
import re
import ssl
import threading

from checking import ENDING, Failed, require
from lab import STATE

PAGE = 500
WRITERS = 8


class Api:
    """One connection to the API server as its administrator; not for several threads at once."""

    def __init__(self):
        pki = STATE / "pki"
        self.tls = ssl.create_default_context(cafile=pki / "ca.crt")
        self.tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        config = (pki / "admin.kubeconfig").read_text()
        self.host, port = re.search(r"https://([\d.]+):(\d+)", config).groups()
        self.port, self.open = int(port), None

    def send(self, method, path, body=None, seconds=30, kind="application/json"):
        if self.open is None:
            self.open = http.client.HTTPSConnection(
                self.host, self.port, timeout=seconds, context=self.tls
            )
        try:
            headers = {"Content-Type": kind, "Accept": "application/json, */*"}
            self.open.request(method, path, json.dumps(body) if body else None, headers)
            return self.open.getresponse()
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.open:
            self.open.close()
        self.open = None

    def ask(self, method, path, body=None, **more):
        """Status and reply; a reply is an object of the API or a text."""
        try:
            reply = self.send(method, path, body, **more)
            text = reply.read().decode()
        except BaseException:
            self.close()
            raise
        return reply.status, json.loads(text) if text[:1] == "{" else text

    def do(self, method, path, body=None, **more):
        status, reply = self.ask(method, path, body, **more)
        text = reply.get("message") if isinstance(reply, dict) else reply
        require(status < 300, f"{method} {path}: {status} {text}")
        return reply

    def get(self, path):
        return self.do("GET", path)

    def pages(self, path, limit=PAGE):
        """Every page of a list."""
        token = ""
        while True:
            page = self.get(f"{path}?limit={limit}&continue={token}")
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return


class Watcher(threading.Thread):
    """A client's watch: goes on after the last event that it saw, whatever ended the stream."""

    def __init__(self, path, revision, seconds):
        """`seconds`: how long a stream is, if nothing ends it before."""
        super().__init__(daemon=True)
        self.path, self.revision, self.seconds = path, int(revision), seconds
        self.added, self.deleted = collections.Counter(), collections.Counter()
        self.bookmarks, self.streams, self.faults = 0, 0, []
        self.ending = threading.Event()
        self.api = Api()

    def run(self):
        while not self.ending.is_set() and not self.faults:
            self.streams += 1
            try:
                self.follow()
            except (OSError, http.client.HTTPException, ValueError):
                self.ending.wait(0.2)
            finally:
                self.api.close()

    def follow(self):
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={self.seconds}"
        query += f"&resourceVersion={self.revision}"
        reply = self.api.send("GET", f"{self.path}?{query}", seconds=self.seconds + 20)
        if reply.status != 200:
            self.ending.wait(0.2)
            return
        while line := reply.readline():
            event = json.loads(line)
            self.see(event["type"], event["object"])

    def see(self, kind, seen):
        if kind == "ERROR":
            # What a client has to do then is to ask again; but nothing of the history may be gone.
            if seen.get("code") == 410:
                self.faults.append(f"history is gone at {self.revision}: {seen.get('message')}")
            return
        revision = int(seen["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            self.bookmarks += 1
            if revision < self.revision:
                self.faults.append(f"a bookmark of {revision} after {self.revision}")
        elif revision <= self.revision:
            self.faults.append(f"an event of {revision} after {self.revision}")
        elif kind == "ADDED":
            self.added[seen["metadata"]["name"]] += 1
        elif kind == "DELETED":
            self.deleted[seen["metadata"]["name"]] += 1
        self.revision = max(self.revision, revision)


class Renewals(threading.Thread):
    """When the node renewed its lease, and whether it ever was not Ready."""

    def __init__(self):
        super().__init__(daemon=True)
        self.times, self.not_ready, self.ending = [], 0, threading.Event()

    def run(self):
        api = Api()
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node1"
        while not self.ending.wait(1):
            try:
                at = datetime.datetime.fromisoformat(api.get(lease)["spec"]["renewTime"])
                if at not in self.times:
                    self.times.append(at)
                conditions = api.get("/api/v1/nodes/node1")["status"]["conditions"]
                ready = next(each for each in conditions if each["type"] == "Ready")
                self.not_ready += ready["status"] != "True"
            except (OSError, http.client.HTTPException, Failed):
                continue

    def gap_max(self):
        gaps = [(b - a).total_seconds() for a, b in zip(self.times, self.times[1:])]
        return max(gaps, default=float("inf"))


def bulk_object(name):
    """A ConfigMap or a Secret of about 300 bytes."""
    text = base64.b64encode(name.encode() * 15).decode()[:256]
    return {"metadata": {"name": name}, "data": {"value": text}}


def create_all(path, names, acknowledged, unknown):
    """Creates by several writers; each name comes to be acknowledged, or its fate is unknown."""
    left = collections.deque(names)

    def write():
        api = Api()
        while not ENDING.is_set():
            try:
                name = left.popleft()
            except IndexError:
                break
            try:
                status, _ = api.ask("POST", path, bulk_object(name), seconds=60)
                is_known = status == 201
            except (OSError, http.client.HTTPException):
                is_known = False
            (acknowledged if is_known else unknown).append(name)
            if not is_known:
                ENDING.wait(0.2)
        api.close()

    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        for each in [pool.submit(write) for _ in range(WRITERS)]:
            each.result()
