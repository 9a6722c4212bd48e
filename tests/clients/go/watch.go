package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

var watchClaims = []claim{
	{"a watch tells puts and deletes with what was before", watchEvents},
	{"filters, created notices and progress arrive as asked for", watchOptions},
	{"a watch from a compacted revision says which revision is left", watchCompacted},
	{"fifty watchers on one stream each get all events", manyWatchers},
	{"a watch resumes through a restart with no event lost or doubled", watchThroughRestart},
}

func watchEvents(s *suite, ctx context.Context) {
	events := s.client.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	check(receive(events, "created").Created, "the first answer says created")
	_, err := s.client.Put(ctx, "watch/a", "1")
	must(err, "put")
	_, err = s.client.Put(ctx, "watch/a", "2")
	must(err, "put")
	_, err = s.client.Delete(ctx, "watch/a")
	must(err, "delete")
	_, err = s.client.Txn(ctx).Then(clientv3.OpPut("watch/b", "3"), clientv3.OpPut("watch/c", "4")).Commit()
	must(err, "txn")
	seen := take(events, 5)
	describe := func(event *clientv3.Event) string {
		before := "-"
		if event.PrevKv != nil {
			before = string(event.PrevKv.Value)
		}
		return fmt.Sprint(event.Type, " ", string(event.Kv.Key), " ", string(event.Kv.Value), " ", before)
	}
	for i, want := range []string{"PUT watch/a 1 -", "PUT watch/a 2 1", "DELETE watch/a  2", "PUT watch/b 3 -", "PUT watch/c 4 -"} {
		equal("event", describe(seen[i]), want)
	}
	check(seen[0].IsCreate() && seen[1].IsModify(), "the first put creates, the second modifies")
	equal("a transaction is one revision", seen[3].Kv.ModRevision, seen[4].Kv.ModRevision)
}

func watchOptions(s *suite, ctx context.Context) {
	puts := s.client.Watch(ctx, "filter", clientv3.WithFilterDelete())
	deletes := s.client.Watch(ctx, "filter", clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	receive(deletes, "created")
	_, err := s.client.Put(ctx, "filter", "1")
	must(err, "put")
	_, err = s.client.Delete(ctx, "filter")
	must(err, "delete")
	last, err := s.client.Put(ctx, "filter", "2")
	must(err, "put")
	for i, event := range take(puts, 2) {
		equal("a put", string(event.Kv.Value), fmt.Sprint(i+1))
	}
	equal("a delete", take(deletes, 1)[0].Type, clientv3.EventTypeDelete)

	// Progress is of the whole stream: a request is sent when its watchers are all up to date.
	own := s.connect()
	defer own.Close()
	quiet := own.Watch(ctx, "quiet", clientv3.WithCreatedNotify())
	receive(quiet, "created")
	must(own.RequestProgress(ctx), "request progress")
	progress := receive(quiet, "progress")
	check(progress.IsProgressNotify(), "the answer is progress")
	check(progress.Header.Revision >= last.Header.Revision, "progress is at the current revision")
}

func watchCompacted(s *suite, ctx context.Context) {
	_, err := s.client.Put(ctx, "compacted", "1")
	must(err, "put")
	put, err := s.client.Put(ctx, "compacted", "2")
	must(err, "put")
	_, err = s.client.Compact(ctx, put.Header.Revision)
	must(err, "compact")
	answer := receive(s.client.Watch(ctx, "compacted", clientv3.WithRev(1)), "the refusal")
	check(answer.Canceled, "the watch is canceled")
	equal("the revision left", answer.CompactRevision, put.Header.Revision)
	check(errors.Is(answer.Err(), rpctypes.ErrCompacted), "the error: %v", answer.Err())
}

func manyWatchers(s *suite, ctx context.Context) {
	var channels []clientv3.WatchChan
	for range 50 {
		channel := s.client.Watch(ctx, "many/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		receive(channel, "created")
		channels = append(channels, channel)
	}
	for i := range 20 {
		_, err := s.client.Put(ctx, fmt.Sprint("many/", i%5), fmt.Sprint(i))
		must(err, "put")
	}
	for _, channel := range channels {
		for i, event := range take(channel, 20) {
			equal("event", string(event.Kv.Value), fmt.Sprint(i))
		}
	}
}

func watchThroughRestart(s *suite, ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	writer := s.connect()
	defer writer.Close()
	start, err := s.client.Put(ctx, "restart/000000", "start")
	must(err, "put")
	from := clientv3.WithRev(start.Header.Revision)
	live := make(chan []string, 1)
	watch := s.client.Watch(ctx, "restart/", clientv3.WithPrefix(), from)
	go func() { live <- collect(watch) }()

	var stop atomic.Bool
	var count atomic.Int64
	acknowledged := make(chan []string, 1)
	go func() { acknowledged <- write(ctx, writer, &stop, &count) }()
	for round := range int64(2) {
		waitFor(func() bool { return count.Load() >= 100*(2*round+1) }, "writes before the restart")
		s.restart()
		waitFor(func() bool { return count.Load() >= 100*(2*round+2) }, "writes after the restart")
	}
	stop.Store(true)
	written := receive(acknowledged, "the writer")
	_, err = writer.Put(ctx, "restart/end", "end")
	must(err, "put")

	seen := receive(live, "the watch through the restart")
	history := collect(s.client.Watch(ctx, "restart/", clientv3.WithPrefix(), from))
	equal("number of events", len(seen), len(history))
	position := map[string]int{}
	for i := range history {
		equal("event", seen[i], history[i])
		position[history[i]] = i
	}
	check(len(written) >= 400, "%d writes", len(written))
	for _, event := range written {
		_, there := position[event]
		check(there, "the acknowledged write %q was not told", event)
	}
}

// write puts, deletes and commits transactions until it is stopped; it returns the events that the
// acknowledged ones must have caused. One without an answer is done again: its fate is unknown.
func write(ctx context.Context, client *clientv3.Client, stop *atomic.Bool, count *atomic.Int64) []string {
	var events []string
	for i := 1; !stop.Load(); i++ {
		key, other := fmt.Sprintf("restart/%06d", i), fmt.Sprintf("restart/%06d-b", i)
		value := fmt.Sprint(i)
		retry(ctx, func(ctx context.Context) error {
			if i%4 == 0 {
				done, err := client.Txn(ctx).Then(clientv3.OpPut(key, value), clientv3.OpPut(other, value)).Commit()
				if err == nil {
					rev := done.Header.Revision
					events = append(events, line("PUT", key, value, rev), line("PUT", other, value, rev))
				}
				return err
			}
			if i%4 == 1 && i > 1 {
				before := fmt.Sprintf("restart/%06d", i-1)
				done, err := client.Delete(ctx, before)
				// A try that was done without an answer leaves nothing to delete.
				if err == nil && done.Deleted == 1 {
					events = append(events, line("DELETE", before, "", done.Header.Revision))
				}
				return err
			}
			done, err := client.Put(ctx, key, value)
			if err == nil {
				events = append(events, line("PUT", key, value, done.Header.Revision))
			}
			return err
		})
		count.Add(1)
	}
	return events
}

// retry calls again until it works: the server may be away.
func retry(ctx context.Context, call func(context.Context) error) {
	deadline := time.Now().Add(waitMax)
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := call(once)
		cancel()
		if err == nil {
			return
		}
		check(time.Now().Before(deadline), "no answer within %v: %v", waitMax, err)
		time.Sleep(5 * time.Millisecond)
	}
}

// collect describes all events up to the key that ends in `end`.
func collect(channel clientv3.WatchChan) []string {
	var lines []string
	var last int64
	for {
		answer := receive(channel, "events")
		must(answer.Err(), "watch")
		for _, event := range answer.Events {
			check(event.Kv.ModRevision >= last, "revision %d after %d", event.Kv.ModRevision, last)
			last = event.Kv.ModRevision
			key := string(event.Kv.Key)
			if key == "restart/end" {
				return lines
			}
			lines = append(lines, line(event.Type.String(), key, string(event.Kv.Value), last))
		}
	}
}

func line(kind, key, value string, revision int64) string {
	return fmt.Sprint(kind, " ", key, "=", value, " at ", revision)
}

// take receives events until it has as many as wanted.
func take(channel clientv3.WatchChan, wanted int) []*clientv3.Event {
	var events []*clientv3.Event
	for len(events) < wanted {
		answer := receive(channel, "events")
		must(answer.Err(), "watch")
		events = append(events, answer.Events...)
	}
	equal("number of events", len(events), wanted)
	return events
}

// waitFor polls the condition within the bound.
func waitFor(holds func() bool, what string) {
	deadline := time.Now().Add(waitMax)
	for !holds() {
		check(time.Now().Before(deadline), "%s: not within %v", what, waitMax)
		time.Sleep(5 * time.Millisecond)
	}
}
