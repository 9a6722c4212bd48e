import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.Lock;
import io.etcd.jetcd.Maintenance;
import io.etcd.jetcd.election.CampaignResponse;
import io.etcd.jetcd.election.LeaderResponse;
import io.etcd.jetcd.maintenance.StatusResponse;
import java.io.ByteArrayOutputStream;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;

/** The lock and election services of the server, and maintenance. */
final class Coordination {
    private Coordination() {}

    static void claims(Suite suite) throws Exception {
        suite.claim("a lock is held by one at a time", Coordination::lockExcludes);
        suite.claim(
                "a lock is free when the lease of its holder expires", Coordination::lockExpires);
        suite.claim(
                "an election has one leader, then the next, and observers see both",
                Coordination::election);
        suite.claim(
                "status, members, hash and defragmentation answer", Coordination::maintenance);
        suite.claim("a snapshot is whole and carries its checksum", Coordination::snapshot);
    }

    private static void lockExcludes(Suite suite) throws Exception {
        AtomicInteger holders = new AtomicInteger();
        List<CompletableFuture<Void>> all = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
            all.add(CompletableFuture.runAsync(() -> takeTurns(suite.client, holders)));
        }
        for (CompletableFuture<Void> each : all) {
            Suite.await(each);
        }
    }

    private static void takeTurns(Client client, AtomicInteger holders) {
        Lock locks = client.getLockClient();
        try {
            for (int i = 0; i < 5; i++) {
                long lease = Suite.await(client.getLeaseClient().grant(30)).getID();
                ByteSequence held =
                        Suite.await(locks.lock(Suite.bytes("lock"), lease)).getKey();
                Suite.equal("holders before", holders.getAndIncrement(), 0);
                Keys.put(client.getKVClient(), "lock-work", "x");
                holders.decrementAndGet();
                Suite.await(locks.unlock(held));
            }
        } catch (Exception failure) {
            throw new AssertionError("a holder failed", failure);
        }
    }

    private static void lockExpires(Suite suite) throws Exception {
        Lock locks = suite.client.getLockClient();
        Lease leases = suite.client.getLeaseClient();
        long dying = Suite.await(leases.grant(2)).getID();
        long living = Suite.await(leases.grant(60)).getID();
        Suite.await(locks.lock(Suite.bytes("dying"), dying));
        ByteSequence held = Suite.await(locks.lock(Suite.bytes("dying"), living)).getKey();
        Suite.await(locks.unlock(held));
    }

    private static void election(Suite suite) throws Exception {
        Election election = suite.client.getElectionClient();
        Lease leases = suite.client.getLeaseClient();
        ByteSequence name = Suite.bytes("election");
        Suite.refused(election.leader(name), "NoLeaderException");
        long one = Suite.await(leases.grant(60)).getID();
        long two = Suite.await(leases.grant(60)).getID();
        CampaignResponse first = Suite.await(election.campaign(name, one, Suite.bytes("one")));
        BlockingQueue<String> leaders = new LinkedBlockingQueue<>();
        election.observe(name, new Election.Listener() {
            @Override
            public void onNext(LeaderResponse told) {
                leaders.add(Suite.text(told.getKv().getValue()));
            }

            @Override
            public void onError(Throwable failure) {
                leaders.add(failure.toString());
            }

            @Override
            public void onCompleted() {}
        });
        Suite.equal("the leader", Suite.next(leaders, "a leader"), "one");
        Suite.await(election.proclaim(first.getLeader(), Suite.bytes("one again")));
        Suite.equal("the leader", Suite.next(leaders, "a leader"), "one again");
        try (Client other = suite.connect()) {
            CompletableFuture<CampaignResponse> campaign =
                    other.getElectionClient().campaign(name, two, Suite.bytes("two"));
            Suite.await(election.resign(first.getLeader()));
            CampaignResponse second = Suite.await(campaign);
            Suite.equal("the leader", Suite.next(leaders, "a leader"), "two");
            String leader = Suite.text(Suite.await(election.leader(name)).getKv().getValue());
            Suite.equal("the leader asked for", leader, "two");
            Suite.await(election.resign(second.getLeader()));
        }
    }

    private static void maintenance(Suite suite) throws Exception {
        Maintenance maintenance = suite.client.getMaintenanceClient();
        int members =
                Suite.await(suite.client.getClusterClient().listMember()).getMembers().size();
        Suite.equal("members", members, 1);
        StatusResponse status = Suite.await(maintenance.statusMember(suite.endpoint));
        Suite.check(!status.getVersion().isEmpty() && status.getDbSize() > 0, "status");
        Suite.equal("alarms", Suite.await(maintenance.listAlarms()).getAlarms().size(), 0);
        int before = hash(suite);
        Suite.await(maintenance.defragmentMember(suite.endpoint));
        Suite.equal("the hash", hash(suite), before);
        Keys.put(suite.client.getKVClient(), "hash", "changes");
        Suite.check(hash(suite) != before, "a put changes the hash");
    }

    private static int hash(Suite suite) throws Exception {
        Maintenance maintenance = suite.client.getMaintenanceClient();
        return (int) Suite.await(maintenance.hashKV(suite.endpoint, 0)).getHash();
    }

    private static void snapshot(Suite suite) throws Exception {
        ByteArrayOutputStream image = new ByteArrayOutputStream();
        long length = Suite.await(suite.client.getMaintenanceClient().snapshot(image));
        byte[] all = image.toByteArray();
        Suite.equal("length", length, (long) all.length);
        byte[] body = Arrays.copyOf(all, all.length - 32);
        byte[] trailer = Arrays.copyOfRange(all, all.length - 32, all.length);
        byte[] sum = MessageDigest.getInstance("SHA-256").digest(body);
        Suite.check(Arrays.equals(sum, trailer), "the trailer is not the checksum");
    }
}
