//! What one file holds: what a reader sees now, and what the disk might hold after a power cut.
//!
//! `data` is the page cache. Every sector that was written since the last sync remembers its older
//! contents, the oldest being what the disk surely has. A power cut picks one of them, or the newest,
//! for each sector on its own: writeback happens at any moment and in any order.
//!
//! ```text
//! sync; write A over sector 3; write B over sector 3, set_len(cut)
//!   disk: old | A | B          length: old | cut          a cut that happened erased old, A and B
//! ```
//!
//! Lengths change in order, as in the journal of a real file system: a power cut keeps a prefix of
//! the changes. The length that appended data gives may be anything in between.

use std::collections::BTreeMap;

use crate::sim::rng::Rng;

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// The unit in which space is allocated, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Unsynced contents that a sector remembers beside the newest one, cuts not counted.
const VERSIONS_MAX: usize = 4;

/// `None` is a sector of zeros.
type Sector = Option<Box<[u8; SECTOR_BYTES]>>;

/// How kind a power cut is to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nothing that was not synced is there.
    Lose,
    /// Everything is there.
    Keep,
    /// Each part is decided on its own.
    Mix,
}

impl Mood {
    /// Draws a mood; most power cuts mix.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        [Self::Lose, Self::Keep, Self::Mix][rng.weighted(&[2, 1, 5])]
    }
}

/// What a power cut did to one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Unsynced sectors that now hold something older than the newest content.
    pub(super) sectors_lost: u64,
    /// Unsynced sectors that hold the newest content.
    pub(super) sectors_kept: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    data: Vec<u8>,
    durable_len: u64,
    lengths: Vec<Length>,
    dirty: BTreeMap<usize, Dirty>,
    /// Sectors that a failed sync marked clean without writing them: what the disk holds instead.
    lost: BTreeMap<usize, Sector>,
    allocated: Vec<bool>,
}

/// One change of the length.
#[derive(Clone, Copy, Debug)]
struct Length {
    to: u64,
    by_write: bool,
}

#[derive(Clone, Debug)]
struct Dirty {
    older: Vec<(Mark, Sector)>,
    newest: Mark,
}

/// When a content of a sector came to be.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// How many changes of the length were before it or made it.
    epoch: usize,
    /// Whether it is what a cut of the file left.
    cut: bool,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// Space that it takes, in pages.
    pub(super) fn pages(&self) -> u64 {
        self.allocated.iter().filter(|&&page| page).count() as u64
    }

    /// Pages that a write must allocate.
    pub(super) fn pages_missing(&self, offset: usize, len: usize) -> u64 {
        pages_of(offset, len)
            .filter(|&page| !self.allocated.get(page).copied().unwrap_or(false))
            .count() as u64
    }

    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) -> bool {
        let Some(data) =
            offset.checked_add(buffer.len()).and_then(|end| self.data.get(offset..end))
        else {
            return false;
        };
        buffer.copy_from_slice(data);
        true
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        let mark = Mark { epoch: self.lengths.len(), cut: false };
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            self.remember(sector, mark);
        }
        if end > self.data.len() {
            self.data.resize(end, 0);
            self.grew_by_write(end as u64);
        }
        self.data[offset..end].copy_from_slice(data);
        let pages = pages_of(offset, data.len());
        if self.allocated.len() < pages.end {
            self.allocated.resize(pages.end, false);
        }
        self.allocated[pages].fill(true);
    }

    fn grew_by_write(&mut self, to: u64) {
        match self.lengths.last_mut() {
            Some(last) if last.by_write => last.to = to,
            _ => self.lengths.push(Length { to, by_write: true }),
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len == self.data.len() {
            return;
        }
        self.lengths.push(Length { to: len as u64, by_write: false });
        if len < self.data.len() {
            let mark = Mark { epoch: self.lengths.len(), cut: true };
            for sector in len / SECTOR_BYTES..self.data.len().div_ceil(SECTOR_BYTES) {
                self.remember(sector, mark);
            }
            self.allocated.truncate((len as u64).div_ceil(PAGE_BYTES) as usize);
        }
        self.data.resize(len, 0);
    }

    /// Keeps what a sector holds before it changes.
    fn remember(&mut self, sector: usize, mark: Mark) {
        let now = sector_of(&self.data, sector);
        let Some(dirty) = self.dirty.get_mut(&sector) else {
            let oldest = self.lost.remove(&sector).unwrap_or(now);
            let durable = Mark { epoch: 0, cut: false };
            self.dirty.insert(sector, Dirty { older: vec![(durable, oldest)], newest: mark });
            return;
        };
        if dirty.older.len() < VERSIONS_MAX || dirty.newest.cut {
            dirty.older.push((dirty.newest, now));
        }
        dirty.newest = mark;
    }

    /// Everything is on the disk, except what an earlier failed sync lost.
    pub(super) fn sync(&mut self) {
        self.dirty.clear();
        self.lengths.clear();
        self.durable_len = self.len();
    }

    /// A sync that fails, as on Linux: some of the sectors reached the disk, the others are marked
    /// clean all the same, and no later sync will write them. Whether readers still see them is open.
    pub(super) fn sync_failing(&mut self, rng: &mut Rng) {
        let evicted = rng.percent(50);
        for (sector, mut dirty) in std::mem::take(&mut self.dirty) {
            if rng.percent(30) {
                continue;
            }
            let at = rng.index(dirty.older.len());
            let (_, on_disk) = dirty.older.swap_remove(at);
            if evicted {
                put_sector(&mut self.data, sector, &on_disk);
            }
            self.lost.insert(sector, on_disk);
        }
    }

    /// Whether a power cut could change anything.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.lengths.is_empty() && self.lost.is_empty()
    }

    /// Becomes what the disk holds after a power cut.
    pub(super) fn crash(&mut self, mood: Mood, rng: &mut Rng) -> Cut {
        let (epoch, len) = self.length_after_crash(mood, rng);
        let len = usize::try_from(len).expect("a simulated file fits in memory");
        let mut cut = Cut::default();
        if self.data.len() < len {
            self.data.resize(len, 0);
        }
        for (sector, on_disk) in std::mem::take(&mut self.lost) {
            put_sector(&mut self.data, sector, &on_disk);
        }
        for (sector, dirty) in std::mem::take(&mut self.dirty) {
            match dirty.choose(epoch, mood, rng) {
                Some(at) => {
                    cut.sectors_lost += 1;
                    put_sector(&mut self.data, sector, &dirty.older[at].1);
                }
                None => cut.sectors_kept += 1,
            }
        }
        self.data.resize(len, 0);
        self.lengths.clear();
        self.durable_len = len as u64;
        self.allocate_what_holds_data();
        cut
    }

    /// How many changes of the length survive, and the length then.
    fn length_after_crash(&self, mood: Mood, rng: &mut Rng) -> (usize, u64) {
        let epoch = match mood {
            Mood::Lose => 0,
            Mood::Keep => self.lengths.len(),
            Mood::Mix => rng.index(self.lengths.len() + 1),
        };
        let before = |epoch: usize| match epoch.checked_sub(1) {
            Some(last) => self.lengths[last].to,
            None => self.durable_len,
        };
        let mut len = before(epoch);
        if mood == Mood::Mix && epoch > 0 && self.lengths[epoch - 1].by_write && rng.percent(50) {
            let page = rng.between(before(epoch - 1), len) / PAGE_BYTES * PAGE_BYTES;
            len = page.clamp(before(epoch - 1), len);
        }
        (epoch, len)
    }

    fn allocate_what_holds_data(&mut self) {
        let mut allocated = std::mem::take(&mut self.allocated);
        allocated.resize(self.data.len().div_ceil(PAGE_BYTES as usize), false);
        for (page, bytes) in self.data.chunks(PAGE_BYTES as usize).enumerate() {
            allocated[page] = allocated[page] || bytes.iter().any(|&byte| byte != 0);
        }
        self.allocated = allocated;
    }
}

impl Dirty {
    /// Which older content a power cut leaves, given how many changes of the length survive; `None`
    /// for the newest.
    fn choose(&self, epoch: usize, mood: Mood, rng: &mut Rng) -> Option<usize> {
        let marks = self.older.iter().map(|(mark, _)| *mark).chain([self.newest]);
        // What a surviving cut erased cannot come back; what an undone cut left was never there.
        let erased = marks.clone().enumerate().filter(|(_, mark)| mark.cut && mark.epoch <= epoch);
        let first = erased.map(|(at, _)| at).last().unwrap_or(0);
        let possible: Vec<usize> = marks
            .enumerate()
            .skip(first)
            .filter(|(_, mark)| !(mark.cut && mark.epoch > epoch))
            .map(|(at, _)| at)
            .collect();
        let chosen = match mood {
            Mood::Lose => possible.first(),
            Mood::Keep => possible.last(),
            Mood::Mix => match rng.below(5) {
                0 | 1 => possible.first(),
                2 | 3 => possible.last(),
                _ => Some(rng.pick(&possible)),
            },
        };
        let chosen = *chosen.expect("the durable content or a surviving cut is always possible");
        (chosen < self.older.len()).then_some(chosen)
    }
}

fn pages_of(offset: usize, len: usize) -> std::ops::Range<usize> {
    let page = PAGE_BYTES as usize;
    offset / page..(offset + len).div_ceil(page)
}

fn sector_of(data: &[u8], sector: usize) -> Sector {
    let start = (sector * SECTOR_BYTES).min(data.len());
    let bytes = &data[start..(start + SECTOR_BYTES).min(data.len())];
    if bytes.iter().all(|&byte| byte == 0) {
        return None;
    }
    let mut copy = Box::new([0; SECTOR_BYTES]);
    copy[..bytes.len()].copy_from_slice(bytes);
    Some(copy)
}

fn put_sector(data: &mut [u8], sector: usize, content: &Sector) {
    let start = sector * SECTOR_BYTES;
    let end = start + SECTOR_BYTES;
    if data.len() <= start {
        return;
    }
    let end = end.min(data.len());
    match content {
        Some(bytes) => data[start..end].copy_from_slice(&bytes[..end - start]),
        None => data[start..end].fill(0),
    }
}
