import io.etcd.jetcd.KV;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.lease.LeaseTimeToLiveResponse;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.support.CloseableClient;
import io.etcd.jetcd.watch.WatchEvent;
import io.grpc.stub.StreamObserver;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** Leases: what they tell, their end by revoke and by time, and a restart of the server. */
final class Leases {
    private Leases() {}

    private static final LeaseOption WITH_KEYS = LeaseOption.builder().withAttachedKeys().build();

    static void claims(Suite suite) throws Exception {
        suite.claim("a lease tells its time to live and its keys", Leases::info);
        suite.claim("a revoked lease takes its keys along and no others", Leases::revoke);
        suite.claim(
                "an expired lease deletes its keys, late enough, and a kept one lives",
                Leases::expiry);
        suite.claim("a kept lease and its key live through a restart", Leases::throughRestart);
    }

    private static void attach(KV kv, String key, long lease) throws Exception {
        PutOption option = PutOption.builder().withLeaseId(lease).build();
        Suite.await(kv.put(Suite.bytes(key), Suite.bytes("x"), option));
    }

    private static long count(KV kv, String prefix) throws Exception {
        GetOption option = GetOption.builder().isPrefix(true).withCountOnly(true).build();
        return Suite.await(kv.get(Suite.bytes(prefix), option)).getCount();
    }

    private static void info(Suite suite) throws Exception {
        Lease leases = suite.client.getLeaseClient();
        Suite.equal("the smallest time to live", Suite.await(leases.grant(1)).getTTL(), 2L);
        long id = Suite.await(leases.grant(100)).getID();
        attach(suite.client.getKVClient(), "lease/a", id);
        attach(suite.client.getKVClient(), "lease/b", id);
        LeaseTimeToLiveResponse info = Suite.await(leases.timeToLive(id, WITH_KEYS));
        Suite.equal("granted", info.getGrantedTTL(), 100L);
        Suite.check(info.getTTL() > 50 && info.getTTL() <= 100, "left: " + info.getTTL());
        Suite.equal("keys", info.getKeys().size(), 2);
        Suite.equal("renewed to", Suite.await(leases.keepAliveOnce(id)).getTTL(), 100L);
        Suite.await(leases.revoke(id));
    }

    private static void revoke(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        Lease leases = suite.client.getLeaseClient();
        long id = Suite.await(leases.grant(100)).getID();
        for (String key : List.of("revoke/a", "revoke/b", "revoke/c")) {
            attach(kv, key, id);
        }
        // Put again without the lease, it is the lease's no more.
        long put = Keys.put(kv, "revoke/c", "y");
        Suite.await(leases.revoke(id));
        GetResponse left =
                Suite.await(kv.get(Suite.bytes("revoke/"), GetOption.builder().isPrefix(true).build()));
        Suite.equal("left", left.getKvs().size(), 1);
        Suite.equal("the key", Suite.text(left.getKvs().get(0).getKey()), "revoke/c");
        try (Watches.Followed watch =
                new Watches.Followed(suite.client, "revoke/", Watches.options(put + 1))) {
            List<WatchEvent> events = watch.take(2);
            long one = events.get(0).getKeyValue().getModRevision();
            Suite.equal("one revision", events.get(1).getKeyValue().getModRevision(), one);
        }
        Suite.refused(leases.revoke(id), "etcdserver: requested lease not found");
        Suite.refused(leases.keepAliveOnce(id), "etcdserver: requested lease not found");
        long gone = Suite.await(leases.timeToLive(id, LeaseOption.DEFAULT)).getTTL();
        Suite.equal("time to live of what is gone", gone, -1L);
    }

    /** Collects the answers of a keep-alive stream. */
    private static final class Kept implements StreamObserver<LeaseKeepAliveResponse> {
        final BlockingQueue<Long> answers = new LinkedBlockingQueue<>();

        @Override
        public void onNext(LeaseKeepAliveResponse answer) {
            answers.add(answer.getTTL());
        }

        @Override
        public void onError(Throwable failure) {
            answers.add(-1L);
        }

        @Override
        public void onCompleted() {}

        /** Receives renewals for that long. */
        void receive(double seconds, long ttl) throws InterruptedException {
            long began = System.nanoTime();
            while (Suite.secondsSince(began) < seconds) {
                Suite.equal("kept alive to", Suite.next(answers, "keep alive"), ttl);
            }
        }
    }

    private static void expiry(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        Lease leases = suite.client.getLeaseClient();
        long kept = Suite.await(leases.grant(2)).getID();
        Kept answers = new Kept();
        try (CloseableClient keeping = leases.keepAlive(kept, answers)) {
            long granted = System.nanoTime();
            long left = Suite.await(leases.grant(2)).getID();
            attach(kv, "expiry/kept", kept);
            long before = Keys.put(kv, "expiry-before", "");
            attach(kv, "expiry/left", left);
            try (Watches.Followed watch = new Watches.Followed(
                    suite.client, "expiry/", Watches.options(before + 1))) {
                WatchEvent deleted = watch.take(2).get(1);
                String key = Suite.text(deleted.getKeyValue().getKey());
                Suite.equal("the expired key", key, "expiry/left");
                Suite.equal("it", deleted.getEventType(), WatchEvent.EventType.DELETE);
            }
            Suite.check(Suite.secondsSince(granted) >= 2, "it expired early");
            answers.answers.clear();
            answers.receive(3, 2);
            Suite.equal("the kept key", count(kv, "expiry/kept"), 1L);
        }
    }

    private static void throughRestart(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        Lease leases = suite.client.getLeaseClient();
        long kept = Suite.await(leases.grant(5)).getID();
        long idle = Suite.await(leases.grant(600)).getID();
        attach(kv, "alive/kept", kept);
        attach(kv, "alive/idle", idle);
        Kept answers = new Kept();
        try (CloseableClient keeping = leases.keepAlive(kept, answers)) {
            Suite.next(answers.answers, "keep alive");
            suite.restart();
            answers.answers.clear();
            answers.receive(6, 5);
            Suite.equal("keys", count(kv, "alive/"), 2L);
        }
        LeaseTimeToLiveResponse info = Suite.await(leases.timeToLive(idle, WITH_KEYS));
        Suite.equal("granted", info.getGrantedTTL(), 600L);
        Suite.check(info.getTTL() > 500, "left: " + info.getTTL());
        Suite.equal("keys of the idle lease", info.getKeys().size(), 1);
        Suite.await(leases.revoke(idle));
        Suite.equal("after the revoke", count(kv, "alive/idle"), 0L);
    }
}
