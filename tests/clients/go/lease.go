package main

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var leaseClaims = []claim{
	{"a lease tells its time to live and its keys", leaseInfo},
	{"a revoked lease takes its keys along and no others", leaseRevoke},
	{"an expired lease deletes its keys, late enough, and a kept one lives", leaseExpiry},
	{"a kept lease and its key live through a restart", leaseThroughRestart},
}

func leaseInfo(s *suite, ctx context.Context) {
	short, err := s.client.Grant(ctx, 1)
	must(err, "grant")
	equal("the smallest time to live", short.TTL, 2)
	lease, err := s.client.Grant(ctx, 100)
	must(err, "grant")
	equal("time to live", lease.TTL, 100)
	for _, key := range []string{"lease/b", "lease/a"} {
		_, err = s.client.Put(ctx, key, "x", clientv3.WithLease(lease.ID))
		must(err, "put")
	}
	info, err := s.client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	must(err, "time to live")
	equal("granted", info.GrantedTTL, 100)
	check(info.TTL > 50 && info.TTL <= 100, "left: %d", info.TTL)
	equal("keys", len(info.Keys), 2)
	renewed, err := s.client.KeepAliveOnce(ctx, lease.ID)
	must(err, "keep alive once")
	equal("renewed to", renewed.TTL, 100)
	all, err := s.client.Leases(ctx)
	must(err, "leases")
	found := 0
	for _, other := range all.Leases {
		if other.ID == lease.ID {
			found++
		}
	}
	equal("times in the list", found, 1)
	got, err := s.client.Get(ctx, "lease/a")
	must(err, "get")
	equal("the key's lease", got.Kvs[0].Lease, int64(lease.ID))
	_, err = s.client.Revoke(ctx, lease.ID)
	must(err, "revoke")
}

func leaseRevoke(s *suite, ctx context.Context) {
	lease, err := s.client.Grant(ctx, 100)
	must(err, "grant")
	for _, key := range []string{"revoke/a", "revoke/b", "revoke/c"} {
		_, err = s.client.Put(ctx, key, "x", clientv3.WithLease(lease.ID))
		must(err, "put")
	}
	// Put again without the lease, it is the lease's no more.
	put, err := s.client.Put(ctx, "revoke/c", "y")
	must(err, "put")
	_, err = s.client.Revoke(ctx, lease.ID)
	must(err, "revoke")
	left, err := s.client.Get(ctx, "revoke/", clientv3.WithPrefix())
	must(err, "get")
	equal("keys left", len(left.Kvs), 1)
	equal("the key left", string(left.Kvs[0].Key), "revoke/c")
	events := take(s.client.Watch(ctx, "revoke/", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision+1)), 2)
	equal("one revision deletes both", events[0].Kv.ModRevision, events[1].Kv.ModRevision)
	_, err = s.client.Revoke(ctx, lease.ID)
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "revoked again: %v", err)
	_, err = s.client.KeepAliveOnce(ctx, lease.ID)
	check(errors.Is(err, rpctypes.ErrLeaseNotFound), "kept alive after all: %v", err)
	gone, err := s.client.TimeToLive(ctx, lease.ID)
	must(err, "time to live")
	equal("time to live of what is gone", gone.TTL, -1)
}

func leaseExpiry(s *suite, ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept, err := s.client.Grant(ctx, 2)
	must(err, "grant")
	alive, err := s.client.KeepAlive(ctx, kept.ID)
	must(err, "keep alive")
	granted := time.Now()
	left, err := s.client.Grant(ctx, 2)
	must(err, "grant")
	_, err = s.client.Put(ctx, "expiry/kept", "x", clientv3.WithLease(kept.ID))
	must(err, "put")
	put, err := s.client.Put(ctx, "expiry/left", "x", clientv3.WithLease(left.ID))
	must(err, "put")
	deleted := take(s.client.Watch(ctx, "expiry/", clientv3.WithPrefix(), clientv3.WithRev(put.Header.Revision+1)), 1)[0]
	equal("the expired key", string(deleted.Kv.Key), "expiry/left")
	equal("its event", deleted.Type, clientv3.EventTypeDelete)
	check(time.Since(granted) >= 2*time.Second, "it expired after %v", time.Since(granted))
	for time.Since(granted) < 5*time.Second {
		equal("kept alive to", receive(alive, "keep alive").TTL, 2)
	}
	got, err := s.client.Get(ctx, "expiry/kept")
	must(err, "get")
	equal("the kept key", got.Count, 1)
}

func leaseThroughRestart(s *suite, ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept, err := s.client.Grant(ctx, 5)
	must(err, "grant")
	idle, err := s.client.Grant(ctx, 600)
	must(err, "grant")
	alive, err := s.client.KeepAlive(ctx, kept.ID)
	must(err, "keep alive")
	receive(alive, "keep alive")
	for key, lease := range map[string]clientv3.LeaseID{"alive/kept": kept.ID, "alive/idle": idle.ID} {
		_, err = s.client.Put(ctx, key, "x", clientv3.WithLease(lease))
		must(err, "put")
	}
	s.restart()
	again := time.Now()
	for time.Since(again) < 6*time.Second {
		receive(alive, "keep alive after the restart")
	}
	got, err := s.client.Get(ctx, "alive/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(err, "get")
	equal("keys", got.Count, 2)
	info, err := s.client.TimeToLive(ctx, idle.ID, clientv3.WithAttachedKeys())
	must(err, "time to live")
	equal("granted", info.GrantedTTL, 600)
	check(info.TTL > 500, "left: %d", info.TTL)
	equal("keys of the idle lease", len(info.Keys), 1)
	_, err = s.client.Revoke(ctx, idle.ID)
	must(err, "revoke")
	gone, err := s.client.Get(ctx, "alive/idle")
	must(err, "get")
	equal("keys after the revoke", gone.Count, 0)
}
