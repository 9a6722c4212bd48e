package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
)

var maintenanceClaims = []claim{
	{"status, members, alarms, hash and defragmentation answer", maintenance},
	{"a snapshot is a whole database with its checksum", snapshots},
}

func maintenance(s *suite, ctx context.Context) {
	members, err := s.client.MemberList(ctx)
	must(err, "member list")
	equal("members", len(members.Members), 1)
	status, err := s.client.Status(ctx, s.endpoint)
	must(err, "status")
	check(status.Version != "" && status.DbSize > 0, "status: %v", status)
	equal("the leader", status.Leader, members.Members[0].ID)
	alarms, err := s.client.AlarmList(ctx)
	must(err, "alarms")
	equal("alarms", len(alarms.Alarms), 0)
	before, err := s.client.HashKV(ctx, s.endpoint, 0)
	must(err, "hash")
	_, err = s.client.Defragment(ctx, s.endpoint)
	must(err, "defragment")
	after, err := s.client.HashKV(ctx, s.endpoint, 0)
	must(err, "hash")
	equal("the hash", after.Hash, before.Hash)
	_, err = s.client.Put(ctx, "hash", "changes")
	must(err, "put")
	changed, err := s.client.HashKV(ctx, s.endpoint, 0)
	must(err, "hash")
	check(changed.Hash != before.Hash, "the hash stayed %d", changed.Hash)
}

func snapshots(s *suite, ctx context.Context) {
	_, err := s.client.Put(ctx, "snapshot/needle", "in the haystack")
	must(err, "put")
	folder, err := os.MkdirTemp("", "clients-snapshot-")
	must(err, "folder")
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "saved.db")
	version, err := snapshot.SaveWithVersion(ctx, zap.NewNop(), s.config(), path)
	must(err, "save")
	check(version != "", "the snapshot tells its version")

	image, err := os.ReadFile(path)
	must(err, "read")
	body, trailer := image[:len(image)-sha256.Size], image[len(image)-sha256.Size:]
	sum := sha256.Sum256(body)
	check(bytes.Equal(sum[:], trailer), "the trailer is the checksum")
	must(os.Truncate(path, int64(len(body))), "cut the trailer")
	database, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	must(err, "open the database")
	defer database.Close()
	found := false
	err = database.View(func(tx *bolt.Tx) error {
		for problem := range tx.Check() {
			fail("the database is damaged: %v", problem)
		}
		return tx.Bucket([]byte("key")).ForEach(func(_, value []byte) error {
			found = found || bytes.Contains(value, []byte("in the haystack"))
			return nil
		})
	})
	must(err, "read the database")
	check(found, "the newest key is in the snapshot")
}
