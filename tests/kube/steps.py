"""What is done with a cluster, step by step, and what must come of it."""

import collections
import http.client
import json
import re
import subprocess
import threading
import time

import lab
from checking import Failed, log_classes, parse_metrics, require, total, until
from clients import PAGE, Api, Renewals, Watcher, create_all

OBJECTS = 2000
KILLS_DOWN_SECONDS = (0, 0, 1, 5)
KILL_OBJECTS = 1000  # are written around each kill
EVENT_SECONDS = 60
COMPACTION_SECONDS = 20
RENEWAL_GAP_SECONDS_MAX = 30  # the node renews every 10 s and counts as gone after 40 s
CONFIG_MAPS, SECRETS = "/api/v1/namespaces/bulk/configmaps", "/api/v1/namespaces/bulk/secrets"
# The cache sends a bookmark before a stream's time is over, and the next one goes on from there. Past the
# cache there is none, and a stream that ended behind a compaction could not go on: only a kill ends it.
WATCH_SECONDS = {CONFIG_MAPS: 40, SECRETS: 600}

API_SERVER_FLAGS = (
    f"--etcd-compaction-interval={COMPACTION_SECONDS}s --event-ttl={EVENT_SECONDS}s "
    # Requests of this script must not wait for one another; a cache of size 0 is switched off.
    "--watch-cache-sizes=secrets#0 --max-requests-inflight=800 --max-mutating-requests-inflight=400"
)

# What fails one check and stops no other.
UNEXPECTED = (
    Failed,
    OSError,
    ValueError,
    LookupError,
    http.client.HTTPException,
    subprocess.SubprocessError,
)


class Run:
    """The steps on one server. Each returns what it found, or raises; a failed one stops no other."""

    def __init__(self, server):
        self.server, self.api, self.results = server, None, {}
        self.watchers, self.renewals, self.old = {}, None, {}
        self.api_metrics, self.log_classes = {}, {}

    def step(self, name, what):
        from_ = time.monotonic()
        try:
            holds, found = True, what()
        except UNEXPECTED as error:
            holds, found = False, f"{type(error).__name__}: {error}"
        self.results[name] = (holds, str(found))
        took = time.monotonic() - from_
        word = "ok  " if holds else "FAIL"
        print(f"{self.server.name:8} {took:5.1f} s  {word} {name}: {found}", flush=True)
        return holds

    def all(self):
        if not self.step("the cluster starts, its node is Ready", self.up):
            return
        self.api = Api()
        self.renewals = Renewals()
        self.renewals.start()
        self.step("every readiness check of the API server", self.ready)
        self.step("a deployment rolls three times, scales up and down", self.deployment)
        self.step("2,000 ConfigMaps and 2,000 Secrets are created", self.create)
        self.step("lists in pages, from the cache", lambda: self.paged(CONFIG_MAPS))
        self.step("lists in pages, from the server", lambda: self.paged(SECRETS))
        self.step("events with a lease", self.events)
        self.step("killed four times under writes: nothing acknowledged is lost", self.kills)
        self.step("the API server compacts; old revisions are gone, not wrong", self.compaction)
        self.step("a namespace is deleted with its content", self.namespace)
        self.step("watched through the cache", lambda: self.watched(CONFIG_MAPS, True))
        self.step("watched on the server", lambda: self.watched(SECRETS, False))
        self.step("events end with their leases", self.expired)
        self.step("the node renews its lease and stays Ready", self.renewed)
        self.step("every readiness check at the end", self.ready)
        self.step("consistent reads from the cache, by progress of the watch", self.progress)
        self.step("the log of the server has no errors and no panics", self.server_log)
        self.step("measured", self.measure)

    def stop(self):
        """Ends the threads; the connections of those that wait end with the cluster."""
        for thread in [*self.watchers.values(), *([self.renewals] if self.renewals else [])]:
            thread.ending.set()

    def up(self):
        is_up, said = lab.up(self.server, API_SERVER_FLAGS)
        require(is_up, said[-600:])
        return re.findall(r"([\d.]+) s  DNS is ready", said)[0] + " s"

    def ready(self):
        checks = self.api.get("/readyz?verbose")
        bad = [line for line in checks.splitlines() if line.startswith("[-]")]
        require(not bad and "readyz check passed" in checks, bad)
        return f"{checks.count('[+]')} checks"

    def deployment(self):
        self.api.do("POST", "/api/v1/namespaces", {"metadata": {"name": "rolls"}})
        many = "/apis/apps/v1/namespaces/rolls/deployments"
        labels = {"app": "rolls"}
        container = {"name": "c", "image": "localhost/pause:1", "imagePullPolicy": "Never"}
        pod = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        template = {"metadata": {"labels": labels, "annotations": {"roll": "0"}}, "spec": pod}
        spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
        self.api.do("POST", many, {"metadata": {"name": "rolls"}, "spec": spec})

        def rolled():
            found = self.api.get(f"{many}/rolls")
            wanted, status = found["spec"]["replicas"], found["status"]
            counts = [status.get(f"{each}eplicas", 0) for each in ("r", "updatedR", "availableR")]
            current = status.get("observedGeneration") == found["metadata"]["generation"]
            return current and counts == [wanted] * 3

        until(60, "the deployment is available", rolled)
        changes = [{"template": {"metadata": {"annotations": {"roll": str(n)}}}} for n in (1, 2, 3)]
        for change in [*changes, {"replicas": 8}, {"replicas": 2}]:
            self.api.do(
                "PATCH", f"{many}/rolls", {"spec": change}, kind="application/merge-patch+json"
            )
            until(60, f"{change} has rolled", rolled)
        sets = self.api.get("/apis/apps/v1/namespaces/rolls/replicasets")["items"]
        require(len(sets) == 4, f"{len(sets)} replica sets, expected 4")
        return "4 replica sets, 3 to 8 to 2 pods"

    def create(self):
        self.api.do("POST", "/api/v1/namespaces", {"metadata": {"name": "bulk"}})
        for path, seconds in WATCH_SECONDS.items():
            revision = self.api.get(path)["metadata"]["resourceVersion"]
            self.old[path] = revision
            self.watchers[path] = Watcher(path, revision, seconds)
            self.watchers[path].start()
        from_ = time.monotonic()
        for path in (CONFIG_MAPS, SECRETS):
            acknowledged, unknown = [], []
            create_all(path, [f"bulk-{n:05}" for n in range(OBJECTS)], acknowledged, unknown)
            require(len(acknowledged) == OBJECTS, f"{len(unknown)} of {path} were not acknowledged")
        return f"{2 * OBJECTS / (time.monotonic() - from_):.0f} a second"

    def paged(self, path):
        names, revisions, sizes = [], set(), []
        for page in self.api.pages(path):
            names += [each["metadata"]["name"] for each in page["items"]]
            revisions.add(page["metadata"]["resourceVersion"])
            sizes.append(len(page["items"]))
            if "remainingItemCount" in page["metadata"]:
                # kube-root-ca.crt is a ConfigMap of every namespace.
                left = page["metadata"]["remainingItemCount"]
                require(left >= OBJECTS - len(names), f"{left} are said to remain after {len(names)}")
        bulk = [name for name in names if name.startswith("bulk-")]
        require(bulk == [f"bulk-{n:05}" for n in range(OBJECTS)], f"{len(bulk)} names, or an order")
        require(len(revisions) == 1, f"pages of {len(revisions)} revisions")
        whole = self.api.get(f"{path}?resourceVersion={revisions.pop()}&resourceVersionMatch=Exact")
        require([each["metadata"]["name"] for each in whole["items"]] == names, "the whole differs")
        self.old[path, "token"] = self.api.get(f"{path}?limit={PAGE}")["metadata"]["continue"]
        return " + ".join(map(str, sizes))

    def events(self):
        many = "/api/v1/namespaces/default/events"
        about = {"kind": "Namespace", "name": "default", "namespace": "default"}
        for n in range(20):
            event = {"metadata": {"name": f"leased-{n}"}, "involvedObject": about, "reason": "Tried"}
            self.api.do("POST", many, event)
        found = self.leased_events()
        require(found == 20, f"{found} events")
        return f"20, for {EVENT_SECONDS} s"

    def leased_events(self):
        items = self.api.get("/api/v1/namespaces/default/events")["items"]
        return sum(each["metadata"]["name"].startswith("leased-") for each in items)

    def kills(self):
        counts = collections.Counter()
        slowest = 0
        for number, down_seconds in enumerate(KILLS_DOWN_SECONDS):
            # Secrets are read back from the server, ConfigMaps arrive through the cache's watch.
            path = (CONFIG_MAPS, SECRETS)[number % 2]
            names = [f"kill-{number}-{n:05}" for n in range(KILL_OBJECTS)]
            acknowledged, unknown = [], []
            told = (path, names, acknowledged, unknown)
            writing = threading.Thread(target=create_all, args=told, daemon=True)
            writing.start()
            until(60, "writes", lambda: len(acknowledged) >= KILL_OBJECTS // 2, every=0.01)
            self.server.kill()
            time.sleep(down_seconds)
            from_ = time.monotonic()
            self.server.start()
            until(60, "the API server is ready again", self.ready, every=0.05)
            slowest = max(slowest, time.monotonic() - from_)
            writing.join()
            pages = self.api.pages(path)
            found = {each["metadata"]["name"] for page in pages for each in page["items"]}
            found = {name for name in found if name.startswith(f"kill-{number}-")}
            lost = set(acknowledged) - found
            require(not lost, f"lost: {sorted(lost)[:5]}")
            require(found <= set(acknowledged + unknown), "there is what nobody wrote")
            counts.update(acknowledged=len(acknowledged), unknown=len(unknown))
        return (
            f"{counts['acknowledged']} acknowledged, {counts['unknown']} unknown; "
            f"ready within {slowest:.1f} s"
        )

    def compaction(self):
        old = f"{SECRETS}?resourceVersion={self.old[SECRETS]}&resourceVersionMatch=Exact&limit=1"
        # The token is younger than the revision from before it: a compaction may have come in between.
        token = self.old[SECRETS, "token"]
        page = f"{SECRETS}?limit={PAGE}&continue={token}"
        gone = lambda: all(self.api.ask("GET", each)[0] == 410 for each in (old, page))
        until(5 * COMPACTION_SECONDS, "a compaction by the API server", gone, every=1)
        # A watch from there is refused in the stream or before it.
        watch = Api()
        query = f"watch=1&resourceVersion={self.old[SECRETS]}&timeoutSeconds=5"
        reply = watch.send("GET", f"{SECRETS}?{query}")
        said = json.loads(reply.readline())
        watch.close()
        code = said["object"]["code"] if said.get("type") == "ERROR" else said.get("code")
        require(code == 410, f"a watch from there: {said}")
        # A list half read gets a token by which it goes on, at a newer revision.
        _, reply = self.api.ask("GET", page)
        more = self.api.get(f"{SECRETS}?limit={PAGE}&continue={reply['metadata']['continue']}")
        first = more["items"][0]["metadata"]["name"]
        require(first == f"bulk-{PAGE:05}", f"the list goes on at {first}")
        return "410 for list, watch and page"

    def namespace(self):
        left = {path: len(self.api.get(path)["items"]) for path in (CONFIG_MAPS, SECRETS)}
        for name in ("bulk", "rolls"):
            self.api.do("DELETE", f"/api/v1/namespaces/{name}")
        from_ = time.monotonic()
        for name in ("bulk", "rolls"):
            path = f"/api/v1/namespaces/{name}"
            until(120, f"{name} is gone", lambda: self.api.ask("GET", path)[0] == 404)
        for path in (CONFIG_MAPS, SECRETS, "/api/v1/namespaces/rolls/pods"):
            require(not self.api.get(path)["items"], f"something is left of {path}")
        return f"{sum(left.values())} objects in {time.monotonic() - from_:.0f} s"

    def watched(self, path, bookmarks):
        watcher = self.watchers[path]
        try:
            until(20, "the last deletion", lambda: watcher.faults or not watcher.added - watcher.deleted)
            if bookmarks:
                seconds = watcher.seconds + 20
                until(seconds, "a bookmark", lambda: watcher.faults or watcher.bookmarks)
        finally:
            watcher.ending.set()
        require(not watcher.faults, watcher.faults)
        twice = [name for name, count in (watcher.added + watcher.deleted).items() if count > 2]
        require(not twice, f"seen twice: {twice[:5]}")
        bulk = [name for name in watcher.added if name.startswith("bulk-")]
        require(len(bulk) == OBJECTS, f"{len(bulk)} of {OBJECTS} were seen")
        counts = f"{watcher.added.total()} added, {watcher.deleted.total()} deleted"
        return f"{counts}, {watcher.bookmarks} bookmarks, {watcher.streams} streams"

    def expired(self):
        until(EVENT_SECONDS + 30, "the last event is gone", lambda: self.leased_events() == 0, every=1)
        return "none is left"

    def renewed(self):
        self.renewals.ending.set()
        count, gap = len(self.renewals.times), self.renewals.gap_max()
        require(gap <= RENEWAL_GAP_SECONDS_MAX, f"{gap:.0f} s between two renewals")
        require(self.renewals.not_ready == 0, f"not Ready {self.renewals.not_ready} times")
        return f"{count} times, at most {gap:.0f} s apart"

    def progress(self):
        self.api_metrics = metrics = parse_metrics(self.api.get("/metrics"))
        name = "apiserver_watch_cache_consistent_read_total"
        from_cache = total(metrics, name, success="true", fallback="false")
        otherwise = total(metrics, name) - from_cache
        bookmarks = total(metrics, "etcd_bookmark_total") + total(metrics, "etcd_bookmark_counts")
        require(from_cache > 0 and bookmarks > 0, f"{from_cache:.0f} reads, {bookmarks:.0f} marks")
        return f"{from_cache:.0f} reads, {otherwise:.0f} otherwise, {bookmarks:.0f} marks of progress"

    def server_log(self):
        text = (lab.STATE / "log" / "cp.etcd.log").read_text(errors="replace")
        bad = re.findall(r'.*(?:"level":"(?i:error|fatal|panic)"|panicked at).*', text)
        require(not bad, f"{len(bad)} lines, such as {bad[:1]}")
        return f"{len(text.splitlines())} lines of warnings"

    def measure(self):
        self.server.account()
        self.server.cost["MiB of data dir"] = self.server.data_mib()
        self.log_classes = log_classes(lab.STATE / "log" / "cp.kube-apiserver.log")
        return "see the table below"
