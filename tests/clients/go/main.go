// The suite of Go's clientv3: every part of the client that people build on.
//
// Run by ../driver.py, whose protocol is in ../README.md: a line `ok CLAIM` for each claim that holds,
// `RESTART` to have the server killed and started again, `DONE` at the end.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// waitMax bounds every wait for something that must happen.
const waitMax = 30 * time.Second

// suite holds what the claims share.
type suite struct {
	endpoint string
	client   *clientv3.Client
	driver   *bufio.Reader
}

// claim is a test and the sentence that it proves.
type claim struct {
	name string
	test func(*suite, context.Context)
}

func main() {
	s := &suite{endpoint: os.Args[len(os.Args)-1], driver: bufio.NewReader(os.Stdin)}
	s.client = s.connect()
	defer s.client.Close()
	for _, group := range [][]claim{kvClaims, watchClaims, leaseClaims, concurrencyClaims, wrapperClaims, maintenanceClaims} {
		for _, c := range group {
			ctx, cancel := context.WithTimeout(context.Background(), 2*waitMax)
			fmt.Fprintln(os.Stderr, "running:", c.name)
			c.test(s, ctx)
			cancel()
			fmt.Println("ok", c.name)
		}
	}
	fmt.Println("DONE")
}

func (s *suite) config() clientv3.Config {
	return clientv3.Config{
		Endpoints:   []string{s.endpoint},
		DialTimeout: waitMax,
		Logger:      zap.NewNop(),
	}
}

// connect gives a client with a connection of its own.
func (s *suite) connect() *clientv3.Client {
	client, err := clientv3.New(s.config())
	must(err, "connect")
	return client
}

// restart returns when the server was killed and serves again.
func (s *suite) restart() {
	fmt.Println("RESTART")
	line, err := s.driver.ReadString('\n')
	must(err, "the driver's answer")
	check(line == "RESTARTED\n", "the driver answered %q", line)
}

// check ends the suite with the text unless the condition holds.
func check(holds bool, format string, values ...any) {
	if !holds {
		fail(format, values...)
	}
}

// equal ends the suite unless both are the same.
func equal[T comparable](what string, got, want T) {
	if got != want {
		fail("%s: got %v, want %v", what, got, want)
	}
}

// must ends the suite if there is an error.
func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func fail(format string, values ...any) {
	// A panic shows where; the driver prints the end of it.
	panic(fmt.Sprintf(format, values...))
}

// receive takes one value of a channel within the bound.
func receive[T any](channel <-chan T, what string) T {
	select {
	case value, open := <-channel:
		check(open, "%s: the channel ended", what)
		return value
	case <-time.After(waitMax):
		fail("%s: nothing came within %v", what, waitMax)
		panic("unreachable")
	}
}
