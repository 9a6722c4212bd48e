//! A log and a model of it side by side, through any sequence of calls, crashes and failures.

use proptest::prelude::*;

use super::*;

/// What the log means after some number of records.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    base: Position,
    entries: Vec<Entry>,
    hard_state: HardState,
    conf_state: Option<(u64, ConfState)>,
}

impl Model {
    fn last_index(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> u64 {
        match index.checked_sub(self.base.index + 1) {
            Some(at) => self.entries[usize::try_from(at).unwrap()].term,
            None => self.base.term,
        }
    }

    fn push(&mut self, entry: Entry) {
        self.entries.truncate(usize::try_from(entry.index - self.base.index - 1).unwrap());
        self.entries.push(entry);
    }

    fn behind(&self, from: u64) -> Option<WalContents> {
        if from > self.last_index() {
            return None;
        }
        let from = from.max(self.base.index);
        let skipped = usize::try_from(from - self.base.index).unwrap();
        Some(WalContents {
            metadata: METADATA,
            hard_state: self.hard_state,
            conf_state: self.conf_state.clone(),
            snapshot: Position { index: from, term: self.term_at(from) },
            entries: self.entries[skipped..].to_vec(),
            torn_at: None,
        })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, back: u64, len: usize, has_state: bool },
    Conf,
    Install { ahead: u64 },
    Sync,
    Release,
    Prepare,
    Reopen,
    PowerCut { seed: u64 },
    FailedSync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..5_u64, prop_oneof![Just(0), 0..4_u64], 0..1500_usize, any::<bool>()).prop_map(
            |(count, back, len, has_state)| Step::Append { count, back, len, has_state }
        ),
        1 => Just(Step::Conf),
        1 => (0..20_u64).prop_map(|ahead| Step::Install { ahead }),
        4 => Just(Step::Sync),
        2 => Just(Step::Release),
        1 => Just(Step::Prepare),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
        1 => Just(Step::FailedSync),
    ]
}

struct Driver {
    fs: TestFs,
    wal: Option<Wal>,
    /// After each record since the last sync; the last is what the log means now.
    states: Vec<Model>,
    /// Applied, so never to be lost.
    applied: u64,
    term: u64,
}

impl Driver {
    fn new() -> Self {
        let fs = TestFs::default();
        let wal = create(&fs, SMALL);
        let model = Model {
            base: Position::default(),
            entries: vec![],
            hard_state: HardState::default(),
            conf_state: None,
        };
        Self { fs, wal: Some(wal), states: vec![model], applied: 0, term: 1 }
    }

    fn now(&self) -> &Model {
        self.states.last().unwrap()
    }

    fn record(&mut self, change: impl FnOnce(&mut Model)) {
        let mut model = self.now().clone();
        change(&mut model);
        self.states.push(model);
    }

    fn run(&mut self, step: &Step) -> Result<(), WalError> {
        match *step {
            Step::Append { count, back, len, has_state } => {
                self.append(count, back, len, has_state)?;
            }
            Step::Conf => {
                let index = self.settled();
                let (term, conf) = (self.now().term_at(index), conf(&[index, 7]));
                self.record(|model| model.conf_state = Some((index, conf.clone())));
                self.wal().append_conf_state(index, term, &conf)?;
            }
            Step::Install { ahead } => self.install(ahead)?,
            Step::Sync => self.sync()?,
            Step::Release => {
                self.sync()?;
                self.applied = self.now().hard_state.commit.max(self.now().base.index);
                let applied = self.applied;
                self.wal().release(applied)?;
            }
            Step::Prepare => self.wal().prepare_next()?,
            Step::Reopen => self.reopen(),
            Step::PowerCut { seed } => self.power_cut(seed),
            Step::FailedSync => {
                self.fs.fail_at(self.fs.changes() + 1, false);
                let is_dirty = self.wal().sync().is_err();
                self.fs.heal();
                // What the cache shows is now all there is, and a start must make it durable.
                self.reopen();
                if is_dirty {
                    self.fs = self.fs.after_crash(|_| 0);
                    self.reopen();
                }
            }
        }
        Ok(())
    }

    fn wal(&mut self) -> &mut Wal {
        self.wal.as_mut().unwrap()
    }

    /// Committed, so never replaced.
    fn settled(&self) -> u64 {
        self.now().hard_state.commit.max(self.applied).max(self.now().base.index)
    }

    fn append(
        &mut self,
        count: u64,
        back: u64,
        len: usize,
        has_state: bool,
    ) -> Result<(), WalError> {
        let settled = self.settled();
        let last = self.now().last_index();
        let first = (last + 1).saturating_sub(back).max(settled + 1);
        if first <= last {
            self.term += 1;
        }
        let batch: Vec<_> = (first..first + count)
            .map(|index| entry(index, self.term, len / usize::try_from(1 + index % 3).unwrap()))
            .collect();
        for entry in &batch {
            self.record(|model| model.push(entry.clone()));
        }
        let last = self.now().last_index();
        let hard_state = has_state.then(|| state(self.term, last - (last - settled) / 2));
        if let Some(hard_state) = hard_state {
            self.record(|model| model.hard_state = hard_state);
        }
        self.wal().append(&batch, hard_state.as_ref()).map(|_| ())
    }

    fn install(&mut self, ahead: u64) -> Result<(), WalError> {
        self.term += 1;
        let settled = self.settled();
        let base = Position { index: settled + 1 + ahead, term: self.term };
        let conf = conf(&[base.index]);
        self.record(|model| {
            model.base = base;
            model.entries.clear();
            model.conf_state = Some((base.index, conf.clone()));
        });
        let hard_state = state(self.term, base.index);
        self.record(|model| model.hard_state = hard_state);
        self.wal().append_snapshot(base, &conf)?;
        self.wal().append(&[], Some(&hard_state)).map(|_| ())
    }

    fn sync(&mut self) -> Result<(), WalError> {
        self.wal().sync()?;
        self.states.drain(..self.states.len() - 1);
        Ok(())
    }

    /// The process ends and starts again: everything is still in the cache.
    fn reopen(&mut self) {
        self.wal = None;
        let (wal, contents) = open(&self.fs, self.applied);
        assert_eq!(Some(contents), self.now().behind(self.applied));
        self.wal = Some(wal);
        self.states.drain(..self.states.len() - 1);
    }

    /// The machine ends: of what was not synced any sectors may be left.
    fn power_cut(&mut self, seed: u64) {
        self.wal = None;
        let mut random = seed | 1;
        self.fs = self.fs.after_crash(|n| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 20).unwrap() % n
        });
        self.recover();
    }

    fn recover(&mut self) {
        let (wal, contents) = open(&self.fs, self.applied);
        let contents = WalContents { torn_at: None, ..contents };
        let found = self
            .states
            .iter()
            .rposition(|model| model.behind(self.applied).as_ref() == Some(&contents))
            .unwrap_or_else(|| panic!("{contents:?} is none of {:?}", self.states));
        self.states = vec![self.states.swap_remove(found)];
        self.wal = Some(wal);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_log_is_a_prefix_with_all_that_was_synced(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut driver = Driver::new();
        for step in &steps {
            driver.run(step).unwrap();
        }
        driver.reopen();
    }
}

#[test]
fn a_power_cut_at_any_call_to_the_disk_loses_nothing_synced() {
    let mut steps = vec![];
    for round in 0..12_usize {
        let has_state = round % 2 == 0;
        steps.push(Step::Append { count: 3, back: 0, len: 100 * round, has_state });
        steps.push(Step::Sync);
        steps.push(Step::Append { count: 2, back: 1, len: 400, has_state: true });
        match round % 4 {
            0 => steps.push(Step::Conf),
            1 => steps.push(Step::Release),
            2 => steps.push(Step::Prepare),
            _ => steps.push(Step::Install { ahead: 3 }),
        }
        if round == 6 {
            steps.push(Step::Reopen);
        }
    }
    let mut whole = Driver::new();
    let before = whole.fs.changes();
    for step in &steps {
        whole.run(step).unwrap();
    }
    let changes = whole.fs.changes() - before;
    assert!(whole.fs.changes() > 60, "{changes}");
    for change in 1..=changes {
        for seed in 1..6 {
            let mut driver = Driver::new();
            driver.fs.fail_at(before + change, true);
            for step in &steps {
                let result = match step {
                    Step::Reopen => {
                        driver.wal = None;
                        Wal::open(driver.fs.shared(), dir(), SMALL, driver.applied)
                            .map(|(wal, _)| driver.wal = Some(wal))
                    }
                    step => driver.run(step),
                };
                if result.is_err() {
                    break;
                }
            }
            driver.power_cut((seed * 1000 + change).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
    }
}
