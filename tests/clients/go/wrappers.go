package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

var wrapperClaims = []claim{
	{"a namespace hides its prefix in keys, ranges, events and leases", namespaces},
	{"a mirror holds the base and then every update", mirrors},
	{"ordered reads never go back", orderedReads},
	{"a leased cache is never stale", leasedCache},
	{"the client of Kubernetes puts, lists and deletes optimistically", kubernetesClient},
}

func namespaces(s *suite, ctx context.Context) {
	kv := namespace.NewKV(s.client.KV, "space/")
	watcher := namespace.NewWatcher(s.client.Watcher, "space/")
	lessor := namespace.NewLease(s.client.Lease, "space/")
	put, err := kv.Put(ctx, "a", "1")
	must(err, "put")
	_, err = s.client.Put(ctx, "spacf", "outside")
	must(err, "put")
	_, err = kv.Txn(ctx).If(clientv3.Compare(clientv3.Version("a"), "=", 1)).Then(clientv3.OpPut("b", "2")).Commit()
	must(err, "txn")
	all, err := kv.Get(ctx, "", clientv3.WithFromKey())
	must(err, "get")
	equal("keys inside", len(all.Kvs), 2)
	equal("a key inside", string(all.Kvs[1].Key), "b")
	plain, err := s.client.Get(ctx, "space/b")
	must(err, "get")
	equal("the plain key", plain.Count, 1)
	events := take(watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision)), 2)
	equal("the key of an event", string(events[1].Kv.Key), "b")
	lease, err := lessor.Grant(ctx, 60)
	must(err, "grant")
	_, err = kv.Put(ctx, "c", "3", clientv3.WithLease(lease.ID))
	must(err, "put")
	info, err := lessor.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	must(err, "time to live")
	equal("the key of the lease", string(info.Keys[0]), "c")
	_, err = s.client.Revoke(ctx, lease.ID)
	must(err, "revoke")
}

func mirrors(s *suite, ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const keys = 2500 // The mirror reads pages of a thousand.
	for first := 0; first < keys; first += 100 {
		var puts []clientv3.Op
		for i := first; i < first+100; i++ {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("mirror/%05d", i), fmt.Sprint(i)))
		}
		_, err := s.client.Txn(ctx).Then(puts...).Commit()
		must(err, "txn")
	}
	copied := map[string]string{}
	syncer := mirror.NewSyncer(s.client, "mirror/", 0)
	pages, errs := syncer.SyncBase(ctx)
	for page := range pages {
		for _, kv := range page.Kvs {
			copied[string(kv.Key)] = string(kv.Value)
		}
	}
	must(<-errs, "base")
	equal("keys of the base", len(copied), keys)
	updates := syncer.SyncUpdates(ctx)
	for i := range 100 {
		_, err := s.client.Put(ctx, fmt.Sprintf("mirror/%05d", i*25), "updated")
		must(err, "put")
		_, err = s.client.Delete(ctx, fmt.Sprintf("mirror/%05d", i*25+1))
		must(err, "delete")
	}
	for _, event := range take(updates, 200) {
		if event.Type == clientv3.EventTypeDelete {
			delete(copied, string(event.Kv.Key))
		} else {
			copied[string(event.Kv.Key)] = string(event.Kv.Value)
		}
	}
	got, err := s.client.Get(ctx, "mirror/", clientv3.WithPrefix())
	must(err, "get")
	equal("keys of the mirror", len(copied), len(got.Kvs))
	for _, kv := range got.Kvs {
		equal("mirrored value", copied[string(kv.Key)], string(kv.Value))
	}
}

func orderedReads(s *suite, ctx context.Context) {
	violated := func(clientv3.Op, clientv3.OpResponse, int64) error {
		return ordering.ErrNoGreaterRev
	}
	kv := ordering.NewKV(s.client.KV, violated)
	for i := range 50 {
		_, err := s.client.Put(ctx, "ordered", fmt.Sprint(i))
		must(err, "put")
		got, err := kv.Get(ctx, "ordered", clientv3.WithSerializable())
		must(err, "ordered get")
		equal("the value", string(got.Kvs[0].Value), fmt.Sprint(i))
	}
}

func leasedCache(s *suite, ctx context.Context) {
	one, closeOne, err := leasing.NewKV(s.client, "leasing/")
	must(err, "leasing")
	defer closeOne()
	other := s.connect()
	defer other.Close()
	two, closeTwo, err := leasing.NewKV(other, "leasing/")
	must(err, "leasing")
	defer closeTwo()
	for i := range 10 {
		_, err := one.Put(ctx, "cached", fmt.Sprint(i))
		must(err, "put")
		for _, kv := range []clientv3.KV{two, one, two} {
			got, err := kv.Get(ctx, "cached")
			must(err, "get")
			equal("the value", string(got.Kvs[0].Value), fmt.Sprint(i))
		}
		one, two = two, one
	}
	_, err = one.Delete(ctx, "cached")
	must(err, "delete")
	got, err := two.Get(ctx, "cached")
	must(err, "get")
	equal("after the delete", got.Count, 0)
}

func kubernetesClient(s *suite, ctx context.Context) {
	client, err := kubernetes.New(s.config())
	must(err, "connect")
	defer client.Close()
	for _, name := range []string{"a", "b", "c"} {
		put, err := client.Kubernetes.OptimisticPut(ctx, "/registry/x/"+name, []byte(name), 0, kubernetes.PutOptions{})
		must(err, "create")
		check(put.Succeeded, "the key is new")
	}
	taken, err := client.Kubernetes.OptimisticPut(ctx, "/registry/x/a", []byte("other"), 0, kubernetes.PutOptions{GetOnFailure: true})
	must(err, "create again")
	check(!taken.Succeeded, "the key is taken")
	equal("what is there", string(taken.KV.Value), "a")
	page, err := client.Kubernetes.List(ctx, "/registry/x/", kubernetes.ListOptions{Limit: 2})
	must(err, "list")
	equal("keys of the page", len(page.Kvs), 2)
	equal("keys in all", page.Count, 3)
	rest, err := client.Kubernetes.List(ctx, "/registry/x/", kubernetes.ListOptions{
		Revision: page.Revision, Limit: 2, Continue: string(page.Kvs[1].Key) + "\x00",
	})
	must(err, "list the rest")
	equal("keys of the rest", len(rest.Kvs), 1)
	gone, err := client.Kubernetes.OptimisticDelete(ctx, "/registry/x/a", taken.KV.ModRevision, kubernetes.DeleteOptions{})
	must(err, "delete")
	check(gone.Succeeded, "the revision was the newest")
	count, err := client.Kubernetes.Count(ctx, "/registry/x/", kubernetes.CountOptions{})
	must(err, "count")
	equal("keys left", count, 2)
}
