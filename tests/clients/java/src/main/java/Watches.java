import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.common.exception.CompactedException;
import io.etcd.jetcd.kv.DeleteResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;

/** Watches: their events, their options, and a restart of the server in the middle. */
final class Watches {
    private Watches() {}

    static void claims(Suite suite) throws Exception {
        suite.claim("a watch tells puts and deletes with what was before", Watches::events);
        suite.claim("filters, created notices and progress arrive as asked for", Watches::options);
        suite.claim("a watch from a compacted revision says which is left", Watches::compacted);
        suite.claim(
                "a watch resumes through a restart with no event lost or doubled",
                Watches::throughRestart);
    }

    /** One watch and what it told. */
    static final class Followed implements AutoCloseable {
        final BlockingQueue<Object> told = new LinkedBlockingQueue<>();
        final Watch.Watcher watcher;

        Followed(Client client, String key, WatchOption.Builder options) {
            Watch watch = client.getWatchClient();
            watcher = watch.watch(
                    Suite.bytes(key), options.build(), Watch.listener(told::add, told::add));
        }

        /** The next answer. Lost connections are told too, and the client goes on by itself. */
        WatchResponse answer() throws InterruptedException {
            while (true) {
                Object next = Suite.next(told, "an answer");
                if (next instanceof WatchResponse answer) {
                    return answer;
                }
                if (watcher.isClosed()) {
                    throw new AssertionError("the watch ended", (Throwable) next);
                }
            }
        }

        List<WatchEvent> take(int wanted) throws InterruptedException {
            List<WatchEvent> events = new ArrayList<>();
            while (events.size() < wanted) {
                events.addAll(answer().getEvents());
            }
            Suite.equal("number of events", events.size(), wanted);
            return events;
        }

        @Override
        public void close() {
            watcher.close();
        }
    }

    static WatchOption.Builder options(long revision) {
        return WatchOption.builder().isPrefix(true).withRevision(revision);
    }

    private static void events(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        WatchOption.Builder options = options(0).withPrevKV(true).withCreateNotify(true);
        try (Followed watch = new Followed(suite.client, "watch/", options)) {
            Suite.check(watch.answer().isCreatedNotify(), "the first answer says created");
            Keys.put(kv, "watch/a", "1");
            Keys.put(kv, "watch/a", "2");
            Suite.await(kv.delete(Suite.bytes("watch/a")));
            pair(kv, "watch/b", "watch/c", "3");
            List<WatchEvent> events = watch.take(5);
            List<String> seen = new ArrayList<>();
            for (WatchEvent event : events) {
                seen.add(event.getEventType()
                        + " " + Suite.text(event.getKeyValue().getKey())
                        + " " + Suite.text(event.getKeyValue().getValue())
                        + " " + Suite.text(event.getPrevKV().getValue()));
            }
            List<String> want = List.of(
                    "PUT watch/a 1 ", "PUT watch/a 2 1", "DELETE watch/a  2",
                    "PUT watch/b 3 ", "PUT watch/c 3 ");
            Suite.equal("events", seen, want);
            long one = events.get(3).getKeyValue().getModRevision();
            Suite.equal("one revision", events.get(4).getKeyValue().getModRevision(), one);
        }
    }

    private static void options(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        WatchOption.Builder noDelete = options(0).withNoDelete(true).withCreateNotify(true);
        WatchOption.Builder noPut = options(0).withNoPut(true).withCreateNotify(true);
        try (Followed puts = new Followed(suite.client, "filter", noDelete);
                Followed deletes = new Followed(suite.client, "filter", noPut)) {
            Suite.check(puts.answer().isCreatedNotify(), "created");
            Suite.check(deletes.answer().isCreatedNotify(), "created");
            Keys.put(kv, "filter", "1");
            Suite.await(kv.delete(Suite.bytes("filter")));
            Keys.put(kv, "filter", "2");
            for (WatchEvent event : puts.take(2)) {
                Suite.equal("puts", event.getEventType(), WatchEvent.EventType.PUT);
            }
            WatchEvent.EventType kind = deletes.take(1).get(0).getEventType();
            Suite.equal("deletes", kind, WatchEvent.EventType.DELETE);
        }
        long last = Keys.put(kv, "other", "1");
        WatchOption.Builder quiet = options(0).withCreateNotify(true).withProgressNotify(true);
        try (Followed watch = new Followed(suite.client, "quiet", quiet)) {
            Suite.check(watch.answer().isCreatedNotify(), "created");
            watch.watcher.requestProgress();
            WatchResponse progress = watch.answer();
            Suite.check(progress.isProgressNotify(), "the answer is progress");
            Suite.check(progress.getHeader().getRevision() >= last, "at the current revision");
        }
    }

    private static void compacted(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        Keys.put(kv, "compacted", "1");
        long last = Keys.put(kv, "compacted", "2");
        Suite.await(kv.compact(last));
        try (Followed watch = new Followed(suite.client, "compacted", options(1))) {
            Object told = Suite.next(watch.told, "the refusal");
            Suite.check(told instanceof CompactedException, "told " + told);
            Suite.equal("left", ((CompactedException) told).getCompactedRevision(), last);
        }
    }

    private static void throughRestart(Suite suite) throws Exception {
        try (Client writer = suite.connect()) {
            KV kv = writer.getKVClient();
            long start = Keys.put(kv, "restart/start", "");
            List<String> acknowledged;
            List<String> seen;
            try (Followed live = new Followed(suite.client, "restart/", options(start))) {
                Writer writing = new Writer(kv);
                CompletableFuture<Void> done = CompletableFuture.runAsync(writing);
                for (int round = 0; round < 2; round++) {
                    int before = writing.told.size();
                    Suite.until("writes before",
                            () -> done.isDone() || writing.told.size() >= before + 100);
                    suite.restart();
                    int after = writing.told.size();
                    Suite.until("writes after",
                            () -> done.isDone() || writing.told.size() >= after + 100);
                }
                writing.stop.set(true);
                Suite.await(done);
                Keys.put(kv, "restart/end", "");
                acknowledged = writing.told;
                seen = collect(live);
            }
            try (Client fresh = suite.connect();
                    Followed again = new Followed(fresh, "restart/", options(start))) {
                List<String> history = collect(again);
                Suite.equal("number of events", seen.size(), history.size());
                Suite.equal("events", seen, history);
            }
            Set<String> missing = new HashSet<>(acknowledged);
            missing.removeAll(new HashSet<>(seen));
            Suite.equal("acknowledged, but not told", missing, Set.of());
        }
    }

    /** Describes all events up to the last key. */
    private static List<String> collect(Followed watch) throws InterruptedException {
        List<String> lines = new ArrayList<>();
        long last = 0;
        while (true) {
            for (WatchEvent event : watch.answer().getEvents()) {
                String key = Suite.text(event.getKeyValue().getKey());
                long revision = event.getKeyValue().getModRevision();
                Suite.check(revision >= last, "revision " + revision + " after " + last);
                last = revision;
                if (key.equals("restart/end")) {
                    return lines;
                }
                String value = Suite.text(event.getKeyValue().getValue());
                lines.add(line(event.getEventType().name(), key, value, revision));
            }
        }
    }

    private static String line(String kind, String key, String value, long revision) {
        return kind + " " + key + "=" + value + " at " + revision;
    }

    private static TxnResponse pair(KV kv, String key, String other, String value)
            throws ExecutionException, InterruptedException, TimeoutException {
        return kv.txn()
                .Then(Op.put(Suite.bytes(key), Suite.bytes(value), PutOption.DEFAULT),
                        Op.put(Suite.bytes(other), Suite.bytes(value), PutOption.DEFAULT))
                .commit()
                .get(5, TimeUnit.SECONDS);
    }

    /** Puts, deletes and commits pairs until it is stopped; what has no answer is done again. */
    private static final class Writer implements Runnable {
        final List<String> told = Collections.synchronizedList(new ArrayList<>());
        final AtomicBoolean stop = new AtomicBoolean();
        private final KV kv;

        Writer(KV kv) {
            this.kv = kv;
        }

        @Override
        public void run() {
            for (int i = 1; !stop.get(); i++) {
                long began = System.nanoTime();
                while (!write(i)) {
                    Suite.check(
                            Suite.secondsSince(began) < Suite.WAIT_SECONDS_MAX,
                            "the writer got no answer");
                }
            }
        }

        /** Whether it was acknowledged. */
        private boolean write(int i) {
            String key = String.format("restart/%06d", i);
            String value = Integer.toString(i);
            try {
                if (i % 4 == 0) {
                    long at = pair(kv, key, key + "-b", value).getHeader().getRevision();
                    told.add(line("PUT", key, value, at));
                    told.add(line("PUT", key + "-b", value, at));
                } else if (i % 4 == 1 && i > 1) {
                    String before = String.format("restart/%06d", i - 1);
                    DeleteResponse done =
                            kv.delete(Suite.bytes(before)).get(5, TimeUnit.SECONDS);
                    // A try that was done without an answer leaves nothing to delete.
                    if (done.getDeleted() == 1) {
                        long at = done.getHeader().getRevision();
                        told.add(line("DELETE", before, "", at));
                    }
                } else {
                    long at = kv.put(Suite.bytes(key), Suite.bytes(value))
                            .get(5, TimeUnit.SECONDS).getHeader().getRevision();
                    told.add(line("PUT", key, value, at));
                }
                return true;
            } catch (ExecutionException | TimeoutException noAnswer) {
                return false;
            } catch (InterruptedException ended) {
                throw new AssertionError(ended);
            }
        }
    }
}
