//! Conformance: transcripts of requests and replies, held against any server of the etcd v3 API.
//!
//! A file under `tests/conformance/` is a sequence of cases; a case is a sequence of steps; a step is
//! some commands, a line of dashes, and what a real etcd answered. The expected part is only ever
//! written by `--update` against an etcd.
//!
//! ```text
//! # case: A put answers with the revision that it made [3.1.4a]
//! put a=1
//! range a
//! ----
//! rev=+1
//! rev=+1 count=1
//!   kv a=1 create=+1 mod=+1 version=1
//! ```
//!
//! # Replies
//!
//! Every field that is set is shown, by the descriptors of the protocol, so that a field too many or
//! too few is a difference. Revisions count from the start of the case: `+1` is the first one made in
//! it. `rev=+1` alone says that the header also holds the cluster, the member and the term of this
//! server; a header that holds anything else is spelled out (`header{rev=+1}`), a missing one is
//! `header=none`. What cannot be equal has a name: `<cluster>`, `<member>`, `<id>`, `<hash 1>`,
//! `<bytes>`, `<index>`. Hashes are numbered as they appear, so equal hashes show as equal.
//!
//! # Commands
//!
//! | command | does |
//! |---|---|
//! | `put KEY=VALUE`, `range KEY..END`, `delete`, `stream`, `compact REV` | calls of KV; [`verbs`] lists all |
//! | `txn` with indented `if`, `then`, `else` | a transaction; `then txn` nests |
//! | `FIELD=VALUE`, `FIELD` | sets a field of the request; `a.b=` reaches into a message |
//! | `watch W KEY..END`, `watch W cancel ID`, `watch W progress` | on the stream W, and reads one response |
//! | `expect W N`, `expect W none` | reads N more; shows that nothing comes within a moment |
//! | `finish W`, `close W` | no request follows; resets the stream |
//! | `tally W N`, `until W rev=REV` | reads N events and sums them up; reads up to a revision |
//! | `keepalive ID ...`, `observe W NAME` | renews leases; follows an election on the stream W |
//! | `bg NAME COMMAND`, `pending NAME`, `join NAME` | a call that waits |
//! | `5x COMMAND` | five times, `%` counting; shows the last reply |
//! | `fill 5x COMMAND`, `together 5x COMMAND` | until it is refused, and revisions count from there; all at once |
//! | `restart` | kills the server and starts it again |
//!
//! Numbers may be `+3` (the third revision of the case), `0x10`, or `$id`, `$key`, `$member`,
//! `$other`: the last id that a server picked, the last key of a lock, this member, another one.
//! Bytes may be escaped (`\x00`, `\0`), quoted, or repeated (`x*1000`).
//!
//! # Where a case runs
//!
//! Before each case everything is deleted: keys, leases, alarms. `# server: FLAGS` at the top of a
//! file asks for a server of its own with these flags, `# needs: fresh` in a case for a store that
//! nobody has written, `# needs: restart` for a server that can be killed. `# needs: several members`
//! and `# needs: an older version` mark what Quorate is to do later: such a case is recorded from an
//! etcd and runs there, and is counted as later on Quorate. A run against a URL skips what it cannot
//! provide, and says so.

pub mod ids;
pub mod lens;
pub mod report;
pub mod requests;
pub mod run;
pub mod script;
pub mod session;
pub mod show;
pub mod step;
pub mod streams;
pub mod tally;
pub mod txn;
pub mod verbs;
pub mod wire;
pub mod words;
