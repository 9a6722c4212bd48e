package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

var concurrencyClaims = []claim{
	{"a mutex is held by one session at a time", mutexExcludes},
	{"a mutex is free when the session of its holder expires", mutexExpires},
	{"an election has one leader, then the next, and observers see both", election},
	{"software transactions lose and invent nothing", stm},
}

func (s *suite) session(ctx context.Context, ttl int) *concurrency.Session {
	session, err := concurrency.NewSession(s.client, concurrency.WithTTL(ttl), concurrency.WithContext(ctx))
	must(err, "session")
	return session
}

func mutexExcludes(s *suite, ctx context.Context) {
	const sessions, rounds = 5, 10
	_, err := s.client.Put(ctx, "mutex-count", "0")
	must(err, "put")
	results := make(chan error, sessions)
	for range sessions {
		session := s.session(ctx, 30)
		defer session.Close()
		go func() { results <- countUnderMutex(ctx, s.client, session, rounds) }()
	}
	for range sessions {
		must(receive(results, "a session"), "counting under the mutex")
	}
	got, err := s.client.Get(ctx, "mutex-count")
	must(err, "get")
	equal("the count", string(got.Kvs[0].Value), fmt.Sprint(sessions*rounds))
	left, err := s.client.Get(ctx, "mutex/", clientv3.WithPrefix())
	must(err, "get")
	equal("keys of waiters left", left.Count, 0)
}

// countUnderMutex reads, adds and writes in separate requests: only the mutex makes that right.
func countUnderMutex(ctx context.Context, client *clientv3.Client, session *concurrency.Session, rounds int) error {
	mutex := concurrency.NewMutex(session, "mutex/")
	for range rounds {
		if err := mutex.Lock(ctx); err != nil {
			return err
		}
		got, err := client.Get(ctx, "mutex-count")
		if err != nil {
			return err
		}
		count, err := strconv.Atoi(string(got.Kvs[0].Value))
		if err != nil {
			return err
		}
		done, err := client.Txn(ctx).If(mutex.IsOwner()).Then(clientv3.OpPut("mutex-count", fmt.Sprint(count+1))).Commit()
		if err != nil {
			return err
		}
		if !done.Succeeded {
			return errors.New("the holder is not the owner")
		}
		if err := mutex.Unlock(ctx); err != nil {
			return err
		}
	}
	return nil
}

func mutexExpires(s *suite, ctx context.Context) {
	dying, waiting := s.session(ctx, 2), s.session(ctx, 30)
	defer waiting.Close()
	must(concurrency.NewMutex(dying, "expiring/").Lock(ctx), "lock")
	mutex := concurrency.NewMutex(waiting, "expiring/")
	err := mutex.TryLock(ctx)
	check(errors.Is(err, concurrency.ErrLocked), "a try while it is held: %v", err)
	dying.Orphan()
	must(mutex.Lock(ctx), "lock after the holder's session")
	must(mutex.Unlock(ctx), "unlock")
	must(mutex.TryLock(ctx), "a try while it is free")
	must(mutex.Unlock(ctx), "unlock")
}

func election(s *suite, ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	one, two := s.session(ctx, 30), s.session(ctx, 30)
	defer one.Close()
	defer two.Close()
	first, second := concurrency.NewElection(one, "election/"), concurrency.NewElection(two, "election/")
	_, err := first.Leader(ctx)
	check(errors.Is(err, concurrency.ErrElectionNoLeader), "before the first: %v", err)
	must(first.Campaign(ctx, "one"), "campaign")
	observed := second.Observe(ctx)
	equal("the leader", string(receive(observed, "the first leader").Kvs[0].Value), "one")
	must(first.Proclaim(ctx, "one again"), "proclaim")
	equal("proclaimed", string(receive(observed, "the proclamation").Kvs[0].Value), "one again")

	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	prefix := clientv3.WithPrefix()
	waitFor(func() bool {
		got, err := s.client.Get(ctx, "election/", prefix, clientv3.WithCountOnly())
		must(err, "get")
		return got.Count == 2
	}, "the second candidate")
	check(len(won) == 0, "two leaders")
	must(first.Resign(ctx), "resign")
	must(receive(won, "the second campaign"), "campaign")
	equal("the next leader", string(receive(observed, "the second leader").Kvs[0].Value), "two")
	leader, err := first.Leader(ctx)
	must(err, "leader")
	equal("the leader asked for", string(leader.Kvs[0].Value), "two")
	must(second.Resign(ctx), "resign")
}

func stm(s *suite, ctx context.Context) {
	const accounts, movers, rounds = 5, 8, 15
	name := func(i int) string { return fmt.Sprint("account/", i%accounts) }
	for i := range accounts {
		_, err := s.client.Put(ctx, name(i), "100")
		must(err, "put")
	}
	move := func(from, to string, amount int) error {
		transfer := func(stm concurrency.STM) error {
			have, _ := strconv.Atoi(stm.Get(from))
			other, _ := strconv.Atoi(stm.Get(to))
			stm.Put(from, fmt.Sprint(have-amount))
			stm.Put(to, fmt.Sprint(other+amount))
			return nil
		}
		_, err := concurrency.NewSTM(s.client, transfer, concurrency.WithAbortContext(ctx))
		return err
	}
	results := make(chan error, movers)
	for mover := range movers {
		go func() {
			for i := range rounds {
				if err := move(name(mover+i), name(mover+i+1+i%3), i); err != nil {
					results <- err
					return
				}
			}
			results <- nil
		}()
	}
	for range movers {
		must(receive(results, "a mover"), "transfer")
	}
	got, err := s.client.Get(ctx, "account/", clientv3.WithPrefix())
	must(err, "get")
	sum := 0
	for _, kv := range got.Kvs {
		amount, err := strconv.Atoi(string(kv.Value))
		must(err, "an amount")
		sum += amount
	}
	equal("the sum", sum, accounts*100)
}
