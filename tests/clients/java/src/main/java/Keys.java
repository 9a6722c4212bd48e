import static io.etcd.jetcd.op.Cmp.Op.EQUAL;
import static io.etcd.jetcd.op.Cmp.Op.GREATER;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.kv.DeleteResponse;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.kv.PutResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.CompactOption;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.PutOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** Keys: put, get, delete, transactions, compaction, namespaces, and the errors. */
final class Keys {
    private Keys() {}

    static void claims(Suite suite) throws Exception {
        suite.claim("what was put is read back with its revisions", Keys::putAndGet);
        suite.claim("ranges are sorted, limited, counted and read at old revisions", Keys::ranges);
        suite.claim("a delete gives what it deleted and leaves the rest", Keys::deletes);
        suite.claim("a transaction takes one branch, nested ones too", Keys::transactions);
        suite.claim("fifty clients that compare and swap lose no update", Keys::compareAndSwap);
        suite.claim("a namespace hides its prefix", Keys::namespaces);
        suite.claim("errors arrive with etcd's texts", Keys::errors);
        suite.claim("a compacted revision is refused and newer ones are there", Keys::compaction);
    }

    private static void putAndGet(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        long first = put(kv, "kv/a", "1");
        PutOption previous = PutOption.builder().withPrevKV().build();
        PutResponse again = Suite.await(kv.put(Suite.bytes("kv/a"), Suite.bytes("2"), previous));
        Suite.equal("the value before", Suite.text(again.getPrevKv().getValue()), "1");
        long second = again.getHeader().getRevision();
        Suite.equal("the revision", second, first + 1);
        KeyValue got = Suite.await(kv.get(Suite.bytes("kv/a"))).getKvs().get(0);
        Suite.equal("the value", Suite.text(got.getValue()), "2");
        Suite.equal("create revision", got.getCreateRevision(), first);
        Suite.equal("mod revision", got.getModRevision(), second);
        Suite.equal("version", got.getVersion(), 2L);
    }

    private static void ranges(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        long last = 0;
        for (String key : List.of("c0", "a1", "d2", "b3")) {
            last = put(kv, "range/" + key.charAt(0), key.substring(1));
        }
        Suite.await(kv.delete(Suite.bytes("range/a")));
        GetOption.SortOrder down = GetOption.SortOrder.DESCEND;
        GetOption.SortOrder up = GetOption.SortOrder.ASCEND;
        Suite.equal("by key", names(kv, prefix()), "bcd 3 false");
        Suite.equal("old", names(kv, prefix().withRevision(last)), "abcd 4 false");
        GetOption.Builder byKey = prefix().withSortField(GetOption.SortTarget.KEY);
        Suite.equal("descending", names(kv, byKey.withSortOrder(down)), "dcb 3 false");
        GetOption.Builder byValue = prefix().withSortField(GetOption.SortTarget.VALUE);
        Suite.equal("by value", names(kv, byValue.withSortOrder(up)), "cdb 3 false");
        Suite.equal("limited", names(kv, prefix().withLimit(2)), "bc 3 true");
        Suite.equal("counted", names(kv, prefix().withCountOnly(true)), " 3 false");
        Suite.equal("late", names(kv, prefix().withMinModRevision(last)), "b 3 false");
        Suite.equal("serializable", names(kv, prefix().withSerializable(true)), "bcd 3 false");
    }

    private static GetOption.Builder prefix() {
        return GetOption.builder().isPrefix(true);
    }

    private static String names(KV kv, GetOption.Builder options) throws Exception {
        GetResponse got = Suite.await(kv.get(Suite.bytes("range/"), options.build()));
        StringBuilder names = new StringBuilder();
        for (KeyValue each : got.getKvs()) {
            names.append(Suite.text(each.getKey()).substring("range/".length()));
        }
        return names + " " + got.getCount() + " " + got.isMore();
    }

    private static void deletes(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        for (String key : List.of("delete/a", "delete/b", "delete/c")) {
            put(kv, key, key);
        }
        DeleteOption options =
                DeleteOption.builder().withRange(Suite.bytes("delete/c")).withPrevKV(true).build();
        DeleteResponse gone = Suite.await(kv.delete(Suite.bytes("delete/a"), options));
        Suite.equal("deleted", gone.getDeleted(), 2L);
        Suite.equal("what", Suite.text(gone.getPrevKvs().get(1).getValue()), "delete/b");
        Suite.equal("again", Suite.await(kv.delete(Suite.bytes("delete/a"))).getDeleted(), 0L);
        GetResponse left = Suite.await(kv.get(Suite.bytes("delete/"), prefix().build()));
        Suite.equal("left", left.getCount(), 1L);
    }

    private static void transactions(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        put(kv, "txn/a", "old");
        TxnResponse done = swap(kv);
        Suite.check(done.isSucceeded(), "the compares hold");
        Suite.check(done.getTxnResponses().get(0).isSucceeded(), "the nested compare holds");
        List<KeyValue> seen = done.getGetResponses().get(0).getKvs();
        Suite.equal("keys seen inside", seen.size(), 2);
        for (KeyValue each : seen) {
            Suite.equal("one revision", each.getModRevision(), done.getHeader().getRevision());
        }
        TxnResponse again = swap(kv);
        Suite.check(!again.isSucceeded(), "the compares hold no more");
        KeyValue other = again.getGetResponses().get(0).getKvs().get(0);
        Suite.equal("the other branch", Suite.text(other.getValue()), "new");
    }

    private static TxnResponse swap(KV kv) throws Exception {
        ByteSequence a = Suite.bytes("txn/a");
        ByteSequence b = Suite.bytes("txn/b");
        Cmp[] absent = {new Cmp(b, EQUAL, CmpTarget.createRevision(0))};
        Op[] create = {Op.put(b, Suite.bytes("nested"), PutOption.DEFAULT)};
        return Suite.await(kv.txn()
                .If(new Cmp(a, EQUAL, CmpTarget.value(Suite.bytes("old"))),
                        new Cmp(a, GREATER, CmpTarget.version(0)))
                .Then(Op.put(a, Suite.bytes("new"), PutOption.DEFAULT),
                        Op.txn(absent, create, new Op[0]),
                        Op.get(Suite.bytes("txn/"), prefix().build()))
                .Else(Op.get(a, GetOption.DEFAULT))
                .commit());
    }

    private static void compareAndSwap(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        put(kv, "cas", "");
        List<CompletableFuture<Void>> clients = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            clients.add(append(kv));
        }
        for (CompletableFuture<Void> each : clients) {
            Suite.await(each);
        }
        KeyValue got = Suite.await(kv.get(Suite.bytes("cas"))).getKvs().get(0);
        Suite.equal("updates", got.getValue().size(), 50);
        Suite.equal("version", got.getVersion(), 51L);
    }

    /** Appends a byte to the value of {@code cas}, as often as others came first. */
    private static CompletableFuture<Void> append(KV kv) {
        ByteSequence key = Suite.bytes("cas");
        return kv.get(key).thenCompose(got -> {
            KeyValue now = got.getKvs().get(0);
            Cmp same = new Cmp(key, EQUAL, CmpTarget.modRevision(now.getModRevision()));
            ByteSequence longer = now.getValue().concat(Suite.bytes("x"));
            return kv.txn().If(same).Then(Op.put(key, longer, PutOption.DEFAULT)).commit();
        }).thenCompose(done ->
                done.isSucceeded() ? CompletableFuture.completedFuture(null) : append(kv));
    }

    private static void namespaces(Suite suite) throws Exception {
        KV plain = suite.client.getKVClient();
        put(plain, "spacf", "outside");
        try (Client client = Client.builder()
                .endpoints(suite.endpoint)
                .namespace(Suite.bytes("space/"))
                .build()) {
            KV inside = client.getKVClient();
            put(inside, "a", "1");
            put(inside, "b", "2");
            GetOption all = GetOption.builder().withRange(Suite.bytes("\0")).build();
            List<KeyValue> keys = Suite.await(inside.get(Suite.bytes("\0"), all)).getKvs();
            Suite.equal("keys inside", keys.size(), 2);
            Suite.equal("a key inside", Suite.text(keys.get(1).getKey()), "b");
        }
        Suite.equal("plain", Suite.await(plain.get(Suite.bytes("space/b"))).getCount(), 1L);
    }

    private static void errors(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        ByteSequence x = Suite.bytes("x");
        PutOption unknown = PutOption.builder().withLeaseId(987654321).build();
        Suite.refused(kv.put(x, x, unknown), "etcdserver: requested lease not found");
        GetOption future = GetOption.builder().withRevision(1L << 40).build();
        Suite.refused(
                kv.get(x, future), "etcdserver: mvcc: required revision is a future revision");
        Suite.refused(
                kv.put(x, Suite.bytes("x".repeat(1700 * 1024))),
                "etcdserver: request is too large");
        Op put = Op.put(x, x, PutOption.DEFAULT);
        Suite.refused(
                kv.txn().Then(put, put).commit(),
                "etcdserver: duplicate key given in txn request");
    }

    private static void compaction(Suite suite) throws Exception {
        KV kv = suite.client.getKVClient();
        long old = put(kv, "compact", "old");
        long last = put(kv, "compact", "new");
        CompactOption physical = CompactOption.builder().withCompactPhysical(true).build();
        Suite.await(kv.compact(last, physical));
        ByteSequence key = Suite.bytes("compact");
        Suite.refused(
                kv.get(key, GetOption.builder().withRevision(old).build()),
                "etcdserver: mvcc: required revision has been compacted");
        GetOption there = GetOption.builder().withRevision(last).build();
        Suite.equal("the rest", Suite.await(kv.get(key, there)).getCount(), 1L);
    }

    static long put(KV kv, String key, String value) throws Exception {
        return Suite.await(kv.put(Suite.bytes(key), Suite.bytes(value))).getHeader().getRevision();
    }
}
