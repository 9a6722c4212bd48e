package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var kvClaims = []claim{
	{"what was put is read back with its revisions", putAndGet},
	{"ranges are sorted, limited, counted and read at old revisions", ranges},
	{"a range that is streamed holds what the range holds", streamedRange},
	{"a delete gives what it deleted and leaves the rest", deletes},
	{"a transaction takes one branch, at one revision, nested ones too", transactions},
	{"a hundred clients that compare and swap lose no update", compareAndSwap},
	{"errors arrive as the client's own error values", errorValues},
	{"a compacted revision is refused and newer ones are there", compaction},
}

func putAndGet(s *suite, ctx context.Context) {
	first, err := s.client.Put(ctx, "kv/a", "1")
	must(err, "put")
	second, err := s.client.Put(ctx, "kv/a", "2", clientv3.WithPrevKV())
	must(err, "put again")
	equal("the value before", string(second.PrevKv.Value), "1")
	equal("the revision", second.Header.Revision, first.Header.Revision+1)
	got, err := s.client.Get(ctx, "kv/a")
	must(err, "get")
	kv := got.Kvs[0]
	equal("the value", string(kv.Value), "2")
	equal("create revision", kv.CreateRevision, first.Header.Revision)
	equal("mod revision", kv.ModRevision, second.Header.Revision)
	equal("version", kv.Version, 2)
	serializable, err := s.client.Get(ctx, "kv/a", clientv3.WithSerializable())
	must(err, "serializable get")
	equal("the serializable value", string(serializable.Kvs[0].Value), "2")
}

func ranges(s *suite, ctx context.Context) {
	var before int64
	for i, key := range []string{"c", "a", "d", "b"} {
		put, err := s.client.Put(ctx, "range/"+key, fmt.Sprint(i))
		must(err, "put")
		before = put.Header.Revision
	}
	_, err := s.client.Delete(ctx, "range/a")
	must(err, "delete")
	keys := func(options ...clientv3.OpOption) string {
		got, err := s.client.Get(ctx, "range/", append(options, clientv3.WithPrefix())...)
		must(err, "range")
		var names []string
		for _, kv := range got.Kvs {
			names = append(names, strings.TrimPrefix(string(kv.Key), "range/"))
		}
		return fmt.Sprintf("%s %d %v", strings.Join(names, ""), got.Count, got.More)
	}
	equal("by key", keys(), "bcd 3 false")
	equal("at an old revision", keys(clientv3.WithRev(before)), "abcd 4 false")
	equal("descending", keys(clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)), "dcb 3 false")
	equal("by value", keys(clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)), "cdb 3 false")
	equal("limited", keys(clientv3.WithLimit(2)), "bc 3 true")
	equal("counted", keys(clientv3.WithCountOnly()), " 3 false")
	equal("modified late", keys(clientv3.WithMinModRev(before)), "b 3 false")
	last, err := s.client.Get(ctx, "range/", clientv3.WithLastCreate()...)
	must(err, "last created")
	equal("last created", string(last.Kvs[0].Key), "range/b")
}

func streamedRange(s *suite, ctx context.Context) {
	for i := range 300 {
		_, err := s.client.Put(ctx, fmt.Sprintf("stream/%03d", i), strings.Repeat("v", 1000))
		must(err, "put")
	}
	plain, err := s.client.Get(ctx, "stream/", clientv3.WithPrefix())
	must(err, "range")
	stream, err := s.client.GetStream(ctx, "stream/", clientv3.WithPrefix())
	must(err, "streamed range")
	joined, err := clientv3.GetStreamToGetResponse(stream)
	must(err, "the parts of the stream")
	equal("count", joined.Count, plain.Count)
	equal("number of keys", len(joined.Kvs), len(plain.Kvs))
	for i, kv := range plain.Kvs {
		equal("key", string(joined.Kvs[i].Key), string(kv.Key))
		equal("mod revision", joined.Kvs[i].ModRevision, kv.ModRevision)
	}
}

func deletes(s *suite, ctx context.Context) {
	for _, key := range []string{"delete/a", "delete/b", "delete/c"} {
		_, err := s.client.Put(ctx, key, key)
		must(err, "put")
	}
	deleted, err := s.client.Delete(ctx, "delete/a", clientv3.WithRange("delete/c"), clientv3.WithPrevKV())
	must(err, "delete")
	equal("deleted", deleted.Deleted, 2)
	equal("what was deleted", string(deleted.PrevKvs[1].Value), "delete/b")
	again, err := s.client.Delete(ctx, "delete/a")
	must(err, "delete again")
	equal("deleted again", again.Deleted, 0)
	equal("the revision stays", again.Header.Revision, deleted.Header.Revision)
	rest, err := s.client.Get(ctx, "delete/", clientv3.WithPrefix())
	must(err, "get")
	equal("the rest", rest.Count, 1)
}

func transactions(s *suite, ctx context.Context) {
	_, err := s.client.Put(ctx, "txn/a", "old")
	must(err, "put")
	nested := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision("txn/b"), "=", 0)},
		[]clientv3.Op{clientv3.OpPut("txn/b", "nested")},
		nil,
	)
	swap := func() *clientv3.TxnResponse {
		done, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.Value("txn/a"), "=", "old")).
			Then(clientv3.OpPut("txn/a", "new"), nested, clientv3.OpGet("txn/", clientv3.WithPrefix())).
			Else(clientv3.OpGet("txn/a")).
			Commit()
		must(err, "txn")
		return done
	}
	done := swap()
	check(done.Succeeded, "the compare holds")
	check(done.Responses[1].GetResponseTxn().Succeeded, "the nested compare holds")
	seen := done.Responses[2].GetResponseRange().Kvs
	equal("keys seen inside", len(seen), 2)
	for _, kv := range seen {
		equal("one revision", kv.ModRevision, done.Header.Revision)
	}
	again := swap()
	check(!again.Succeeded, "the compare holds no more")
	equal("the other branch", string(again.Responses[0].GetResponseRange().Kvs[0].Value), "new")
}

func compareAndSwap(s *suite, ctx context.Context) {
	_, err := s.client.Put(ctx, "cas", "")
	must(err, "put")
	results := make(chan error, 100)
	for range cap(results) {
		go func() { results <- appendOne(ctx, s.client) }()
	}
	for range cap(results) {
		must(receive(results, "compare and swap"), "compare and swap")
	}
	got, err := s.client.Get(ctx, "cas")
	must(err, "get")
	equal("updates", len(got.Kvs[0].Value), 100)
	equal("version", got.Kvs[0].Version, 101)
}

// appendOne appends a byte to the value of `cas`, as often as others came first.
func appendOne(ctx context.Context, client *clientv3.Client) error {
	for {
		got, err := client.Get(ctx, "cas")
		if err != nil {
			return err
		}
		kv := got.Kvs[0]
		done, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision("cas"), "=", kv.ModRevision)).
			Then(clientv3.OpPut("cas", string(kv.Value)+"x")).
			Commit()
		if err != nil || done.Succeeded {
			return err
		}
	}
}

func errorValues(s *suite, ctx context.Context) {
	_, err := s.client.Put(ctx, "", "x")
	check(errors.Is(err, rpctypes.ErrEmptyKey), "an empty key: %v", err)
	_, err = s.client.Get(ctx, "x", clientv3.WithRev(1<<40))
	check(errors.Is(err, rpctypes.ErrFutureRev), "a future revision: %v", err)
	_, err = s.client.Put(ctx, "x", "x", clientv3.WithLease(987654321))
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "an unknown lease: %v", err)
	_, err = s.client.Txn(ctx).Then(clientv3.OpPut("x", "1"), clientv3.OpPut("x", "2")).Commit()
	check(errors.Is(err, rpctypes.ErrDuplicateKey), "the same key twice: %v", err)
	_, err = s.client.Put(ctx, "x", strings.Repeat("x", 1700*1024))
	check(errors.Is(err, rpctypes.ErrRequestTooLarge), "too large a value: %v", err)
	operations := make([]clientv3.Op, 129)
	for i := range operations {
		operations[i] = clientv3.OpPut(fmt.Sprint("x", i), "x")
	}
	_, err = s.client.Txn(ctx).Then(operations...).Commit()
	check(errors.Is(err, rpctypes.ErrTooManyOps), "too many operations: %v", err)
}

func compaction(s *suite, ctx context.Context) {
	old, err := s.client.Put(ctx, "compact", "old")
	must(err, "put")
	put, err := s.client.Put(ctx, "compact", "new")
	must(err, "put")
	_, err = s.client.Compact(ctx, put.Header.Revision, clientv3.WithCompactPhysical())
	must(err, "compact")
	_, err = s.client.Get(ctx, "compact", clientv3.WithRev(old.Header.Revision))
	check(errors.Is(err, rpctypes.ErrCompacted), "a compacted revision: %v", err)
	got, err := s.client.Get(ctx, "compact", clientv3.WithRev(put.Header.Revision))
	must(err, "the compact revision itself")
	equal("the value", string(got.Kvs[0].Value), "new")
	_, err = s.client.Compact(ctx, put.Header.Revision)
	check(errors.Is(err, rpctypes.ErrCompacted), "compacted again: %v", err)
}
