"""The suite of a Python client, aetcd: asyncio over grpcio, with the stubs that it ships.

Run by ../driver.py, whose protocol is in ../README.md: a line `ok CLAIM` for each claim that holds,
`RESTART` to have the server killed and started again, `DONE` at the end.

The client does not resume a watch: when the connection ends, so does the iterator, with an error, and
who uses it watches again from the revision after the last one seen. `resumed` here is that loop.
"""

import asyncio
import hashlib
import io
import logging
import sys
import time

import aetcd

WAIT_SECONDS_MAX = 30


class Suite:
    """What the claims share."""

    def __init__(self, endpoint):
        host, _, port = endpoint.rpartition(":")
        self.address = {"host": host, "port": int(port), "timeout": WAIT_SECONDS_MAX}
        self.client = self.connect()

    def connect(self):
        # After a failure grpc waits ever longer before it connects again; a test need not.
        options = {"grpc.max_reconnect_backoff_ms": 200, "grpc.initial_reconnect_backoff_ms": 50}
        return aetcd.Client(options=options, **self.address)

    async def restart(self):
        """Returns when the server was killed and serves again."""
        print("RESTART", flush=True)
        line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        equal("the driver's answer", line, "RESTARTED\n")


def check(holds, text):
    if not holds:
        raise AssertionError(text)


def equal(what, got, want):
    check(got == want, f"{what}: got {got!r}, want {want!r}")


async def within(awaitable):
    return await asyncio.wait_for(awaitable, WAIT_SECONDS_MAX)


async def refused(awaitable, error, part):
    """The call must fail with that error, and its text hold that part."""
    try:
        await awaitable
    except error as refusal:
        check(part in str(refusal), f"the text is {str(refusal)!r}")
        return refusal
    raise AssertionError(f"not refused: {part}")


async def take(watch, wanted):
    """The next events of a watch."""
    events = []

    async def receive():
        async for event in watch:
            events.append(event)
            if len(events) == wanted:
                return

    await within(receive())
    return events


def describe(event):
    return (event.kind, event.kv.key, event.kv.value, event.kv.mod_revision)


async def put_and_get(suite):
    client = suite.client
    first = await client.put(b"kv/a", b"1")
    second = await client.put(b"kv/a", b"2", prev_kv=True)
    equal("the value before", second.prev_kv.value, b"1")
    equal("the revision", second.header.revision, first.header.revision + 1)
    got = await client.get(b"kv/a")
    seen = (got.value, got.create_revision, got.mod_revision, got.version)
    equal("the key", seen, (b"2", first.header.revision, second.header.revision, 2))
    equal("a serializable read", (await client.get(b"kv/a", serializable=True)).value, b"2")
    equal("no key", await client.get(b"kv/none"), None)
    binary = bytes(range(256)) * 64
    await client.put(b"kv/\x00\xff", binary)
    equal("any bytes", (await client.get(b"kv/\x00\xff")).value, binary)


async def ranges(suite):
    client = suite.client
    for value, key in enumerate([b"c", b"a", b"d", b"b"]):
        await client.put(b"range/" + key, str(value).encode())

    def names(answer):
        return b"".join(kv.key[-1:] for kv in answer)

    equal("by key", names(await client.get_prefix(b"range/")), b"abcd")
    descending = await client.get_prefix(b"range/", sort_order="descend")
    equal("descending", names(descending), b"dcba")
    by_value = await client.get_prefix(b"range/", sort_order="ascend", sort_target="value")
    equal("by value", names(by_value), b"cadb")
    equal("a range", names(await client.get_range(b"range/b", b"range/d")), b"bc")
    keys = await client.get_prefix(b"range/", keys_only=True)
    equal("keys only", [kv.value for kv in keys], [b""] * 4)


async def deletes(suite):
    client = suite.client
    for key in [b"delete/a", b"delete/b", b"delete/c"]:
        await client.put(key, key)
    one = await client.delete(b"delete/a", prev_kv=True)
    equal("what was deleted", one.prev_kv.value, b"delete/a")
    equal("nothing to delete", await client.delete(b"delete/a"), None)
    rest = await client.delete_prefix(b"delete/", prev_kv=True)
    equal("deleted", (rest.deleted, rest[1].value), (2, b"delete/c"))
    equal("left", len(await client.get_prefix(b"delete/")), 0)


async def transactions(suite):
    client, txn = suite.client, suite.client.transactions
    await client.put(b"txn/a", b"old")

    async def swap():
        return await client.transaction(
            compare=[txn.value(b"txn/a") == b"old", txn.version(b"txn/a") > 0],
            success=[
                txn.put(b"txn/a", b"new"),
                txn.txn(
                    compare=[txn.create(b"txn/b") == 0],
                    success=[txn.put(b"txn/b", b"nested")],
                    failure=[],
                ),
                txn.get(b"txn/", range_end=b"txn0"),
            ],
            failure=[txn.get(b"txn/a"), txn.delete(b"txn/b")],
        )

    done, answers = await swap()
    check(done, "the compares hold")
    check(answers[1].response_txn.succeeded, "the nested compare holds")
    equal("seen inside", [value for value, _ in answers[2]], [b"new", b"nested"])
    equal("one revision", len({kv.mod_revision for _, kv in answers[2]}), 1)
    done, answers = await swap()
    check(not done, "the compares hold no more")
    equal("the other branch", answers[0][0][0], b"new")
    equal("deleted by it", answers[1].response_delete_range.deleted, 1)


async def compare_and_swap(suite):
    client, txn = suite.client, suite.client.transactions
    await client.put(b"cas", b"")

    async def append():
        while True:
            got = await client.get(b"cas")
            done, _ = await client.transaction(
                compare=[txn.mod(b"cas") == got.mod_revision],
                success=[txn.put(b"cas", got.value + b"x")],
                failure=[],
            )
            if done:
                return

    await within(asyncio.gather(*[append() for _ in range(50)]))
    got = await client.get(b"cas")
    equal("updates", (len(got.value), got.version), (50, 51))


async def errors(suite):
    client = suite.client
    invalid = aetcd.InvalidArgumentError
    await refused(client.put(b"", b"x"), invalid, "key is not provided")
    await refused(client.put(b"x", b"x", lease=987654321), aetcd.ClientError, "requested lease not found")
    await refused(client.put(b"x", b"x" * 1700 * 1024), invalid, "request is too large")
    compare = [client.transactions.version(b"x") == 0]
    puts = [client.transactions.put(b"x", b"1"), client.transactions.put(b"x", b"2")]
    await refused(client.transaction(compare, puts, []), invalid, "duplicate key given in txn request")


async def watch_events(suite):
    client, txn = suite.client, suite.client.transactions
    watch = await client.watch_prefix(b"watch/", prev_kv=True)
    await client.put(b"watch/a", b"1")
    await client.put(b"watch/a", b"2")
    await client.delete(b"watch/a")
    puts = [txn.put(b"watch/b", b"3"), txn.put(b"watch/c", b"4")]
    await client.transaction(compare=[], success=puts, failure=[])
    events = await take(watch, 5)
    seen = [(e.kind, e.kv.key, e.kv.value, e.prev_kv and e.prev_kv.value) for e in events]
    # The client gives an empty key-value for one that was not there.
    want = [
        ("PUT", b"watch/a", b"1", b""),
        ("PUT", b"watch/a", b"2", b"1"),
        ("DELETE", b"watch/a", b"", b"2"),
        ("PUT", b"watch/b", b"3", b""),
        ("PUT", b"watch/c", b"4", b""),
    ]
    equal("events", seen, want)
    equal("one revision", events[3].kv.mod_revision, events[4].kv.mod_revision)
    await watch.cancel()


async def watch_filters(suite):
    client = suite.client
    puts = await client.watch(b"filter", kind=aetcd.EventKind.PUT)
    deletes_ = await client.watch(b"filter", kind=aetcd.EventKind.DELETE)
    first = await client.put(b"filter", b"1")
    await client.delete(b"filter")
    await client.put(b"filter", b"2")
    equal("puts", [event.kv.value for event in await take(puts, 2)], [b"1", b"2"])
    equal("a delete", (await take(deletes_, 1))[0].kv.mod_revision, first.header.revision + 1)
    past = await client.watch(b"filter", start_revision=first.header.revision)
    equal("from the past", [e.kind for e in await take(past, 3)], ["PUT", "DELETE", "PUT"])
    for watch in (puts, deletes_, past):
        await watch.cancel()


async def watch_compacted(suite):
    client = suite.client
    await client.put(b"compacted", b"1")
    put = await client.put(b"compacted", b"2")
    await client.compact(put.header.revision)
    # The server first says that the watch is created, and then why it ends.
    watch = await client.watch(b"compacted", start_revision=1)
    refusal = await refused(take(watch, 1), aetcd.RevisionCompactedError, "compacted")
    equal("the revision left", refusal.compacted_revision, put.header.revision)
    await watch.cancel()


async def resumed(suite, start_revision, seen):
    """Follows `restart/` up to its last key, through any number of lost connections."""
    client = suite.connect()
    revision = start_revision
    while True:
        try:
            watch = await client.watch_prefix(b"restart/", start_revision=revision)
            async for event in watch:
                if event.kv.key == b"restart/end":
                    await client.close()
                    return seen
                seen.append(describe(event))
        except aetcd.ClientError:
            if seen:
                revision = seen[-1][3] + 1
            await client.close()
            client = suite.connect()


async def write(client, stop, acknowledged):
    """Puts, deletes and commits pairs until told to stop; what has no answer is done again."""
    txn, i = client.transactions, 0
    while not stop.is_set():
        i += 1
        key, value = b"restart/%06d" % i, b"%d" % i
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while True:
            try:
                if i % 4 == 0:
                    puts = [txn.put(key, value), txn.put(key + b"-b", value)]
                    _, answers = await client.transaction(compare=[], success=puts, failure=[])
                    revision = answers[0].response_put.header.revision
                    acknowledged += [("PUT", key, value, revision), ("PUT", key + b"-b", value, revision)]
                elif i % 4 == 1 and i > 1:
                    before = b"restart/%06d" % (i - 1)
                    done = await client.delete(before)
                    # A try that was done without an answer leaves nothing to delete.
                    if done is not None:
                        acknowledged.append(("DELETE", before, b"", done.header.revision))
                else:
                    done = await client.put(key, value)
                    acknowledged.append(("PUT", key, value, done.header.revision))
                break
            except aetcd.ClientError:
                check(time.monotonic() < deadline, "the writer got no answer")
                await asyncio.sleep(0.005)


async def until(holds):
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        check(time.monotonic() < deadline, "waited in vain")
        await asyncio.sleep(0.005)


async def watch_through_restart(suite):
    start = await suite.client.put(b"restart/start", b"")
    revision, seen, acknowledged = start.header.revision, [], []
    live = asyncio.create_task(resumed(suite, revision, seen))
    stop, writer = asyncio.Event(), suite.connect()
    writing = asyncio.create_task(write(writer, stop, acknowledged))
    for _ in range(2):
        written = len(acknowledged)
        await until(lambda: writing.done() or len(acknowledged) >= written + 100)
        await suite.restart()
        written = len(acknowledged)
        await until(lambda: writing.done() or len(acknowledged) >= written + 100)
    stop.set()
    await within(writing)
    await writer.put(b"restart/end", b"")
    await within(live)
    history = await within(resumed(suite, revision, []))
    equal("number of events", len(seen), len(history))
    equal("events", seen, history)
    check(all(a[3] <= b[3] for a, b in zip(seen, seen[1:])), "revisions go back")
    missing = set(acknowledged) - set(seen)
    check(not missing, f"acknowledged, but not told: {missing}")
    await writer.close()


async def lease_info(suite):
    client = suite.client
    equal("the smallest time to live", (await client.lease(1)).ttl, 2)
    lease = await client.lease(100)
    equal("time to live", lease.ttl, 100)
    for key in [b"lease/b", b"lease/a"]:
        await client.put(key, b"x", lease=lease)
    info = await client.get_lease_info(lease.id)
    equal("granted", info.grantedTTL, 100)
    check(50 < info.TTL <= 100, f"left: {info.TTL}")
    equal("keys", sorted(info.keys), [b"lease/a", b"lease/b"])
    equal("renewed to", (await lease.refresh()).TTL, 100)
    chosen = await client.lease(60, lease_id=4711)
    equal("the chosen id", chosen.id, 4711)
    await refused(client.lease(60, lease_id=4711), aetcd.DuplicateLeaseError, "")
    await chosen.revoke()


async def lease_revoke(suite):
    client = suite.client
    lease = await client.lease(100)
    for key in [b"revoke/a", b"revoke/b", b"revoke/c"]:
        await client.put(key, b"x", lease=lease)
    # Put again without the lease, it is the lease's no more.
    put = await client.put(b"revoke/c", b"y")
    await lease.revoke()
    equal("left", [kv.key for kv in await client.get_prefix(b"revoke/")], [b"revoke/c"])
    watch = await client.watch_prefix(b"revoke/", start_revision=put.header.revision + 1)
    events = await take(watch, 2)
    equal("one revision", events[0].kv.mod_revision, events[1].kv.mod_revision)
    await watch.cancel()
    await refused(lease.revoke(), aetcd.ClientError, "requested lease not found")
    equal("kept alive after all", (await lease.refresh()).TTL, 0)
    equal("time to live of what is gone", await lease.remaining_ttl(), -1)


async def lease_expiry(suite):
    client = suite.client
    kept = await client.lease(2)
    granted = time.monotonic()
    left = await client.lease(2)
    await client.put(b"expiry/kept", b"x", lease=kept)
    put = await client.put(b"expiry/left", b"x", lease=left)
    keeping = asyncio.create_task(keep_alive(kept, granted + 5, 0.5))
    watch = await client.watch_prefix(b"expiry/", start_revision=put.header.revision + 1)
    event = (await take(watch, 1))[0]
    equal("the expired key", (event.kind, event.kv.key), ("DELETE", b"expiry/left"))
    check(time.monotonic() - granted >= 2, "it expired early")
    await watch.cancel()
    check(await within(keeping) >= 4, "it was kept alive")
    check(await client.get(b"expiry/kept") is not None, "the kept key is there")


async def keep_alive(lease, until_time, seconds):
    """Renews a lease every so often; returns how often it was renewed."""
    renewed = 0
    while time.monotonic() < until_time:
        answer = await lease.refresh()
        check(answer.TTL > 0, "the lease is gone")
        renewed += 1
        await asyncio.sleep(seconds)
    return renewed


async def lease_through_restart(suite):
    client = suite.client
    kept, idle = await client.lease(5), await client.lease(600)
    await client.put(b"alive/kept", b"x", lease=kept)
    await client.put(b"alive/idle", b"x", lease=idle)
    await suite.restart()
    await until_served(client)
    await keep_alive(kept, time.monotonic() + 6, 1)
    equal("keys", len(await client.get_prefix(b"alive/")), 2)
    info = await client.get_lease_info(idle.id)
    equal("the idle lease", (info.grantedTTL, list(info.keys)), (600, [b"alive/idle"]))
    check(info.TTL > 500, f"left: {info.TTL}")
    await idle.revoke()
    equal("the key of the revoked", await client.get(b"alive/idle"), None)


async def until_served(client):
    """The connection of before is noticed to be dead by the first call, which may fail."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            return await client.status()
        except aetcd.ClientError:
            check(time.monotonic() < deadline, "the server does not answer")
            await asyncio.sleep(0.02)


async def locks(suite):
    client, holders, rounds = suite.client, [], 0

    async def worker():
        nonlocal rounds
        for _ in range(5):
            lock = client.lock(b"lock", ttl=20)
            check(await lock.acquire(timeout=WAIT_SECONDS_MAX), "the lock was not to be had")
            holders.append(lock)
            equal("holders", len(holders), 1)
            check(await lock.is_acquired(), "the holder holds it")
            rounds += 1
            holders.pop()
            check(await lock.release(), "the holder may release it")

    await within(asyncio.gather(*[worker() for _ in range(4)]))
    equal("rounds", rounds, 20)
    dying = client.lock(b"lock", ttl=2)
    await dying.acquire()
    async with client.lock(b"lock", ttl=20) as lock:
        check(await lock.is_acquired(), "it is free when the lease of its holder expired")


async def maintenance(suite):
    client = suite.client
    status = await client.status()
    check(status.version and status.db_size > 0, f"status {status.version} {status.db_size}")
    members = [member async for member in client.members()]
    equal("members", len(members), 1)
    equal("alarms", [alarm async for alarm in client.list_alarms()], [])
    await client.defragment()
    image = io.BytesIO()
    await client.snapshot(image)
    body, trailer = image.getvalue()[:-32], image.getvalue()[-32:]
    equal("the trailer", hashlib.sha256(body).digest(), trailer)
    check(b"restart/end" in body, "a key is in the snapshot")


CLAIMS = {
    "what was put is read back with its revisions": put_and_get,
    "ranges are sorted and cut": ranges,
    "a delete gives what it deleted and leaves the rest": deletes,
    "a transaction takes one branch, at one revision, nested ones too": transactions,
    "fifty tasks that compare and swap lose no update": compare_and_swap,
    "errors arrive as the client's own exceptions, with etcd's texts": errors,
    "a watch tells puts and deletes with what was before": watch_events,
    "filters hold and the past is told": watch_filters,
    "a watch from a compacted revision says which revision is left": watch_compacted,
    "a watch that is resumed through a restart loses and doubles no event": watch_through_restart,
    "a lease tells its time to live and its keys": lease_info,
    "a revoked lease takes its keys along and no others": lease_revoke,
    "an expired lease deletes its keys, late enough, and a kept one lives": lease_expiry,
    "a kept lease and its key live through a restart": lease_through_restart,
    "a lock is held by one at a time and free when its holder's lease expires": locks,
    "status, members, alarms, defragmentation and snapshot answer": maintenance,
}


async def main():
    # The client reports each lost connection of a callback; here that is what is tested.
    logging.disable(logging.CRITICAL)
    suite = Suite(sys.argv[-1])
    for claim, test in CLAIMS.items():
        print("running:", claim, file=sys.stderr, flush=True)
        await asyncio.wait_for(test(suite), 2 * WAIT_SECONDS_MAX)
        print("ok", claim, flush=True)
    await suite.client.close()
    print("DONE", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
