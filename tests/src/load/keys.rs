//! Keys of equal length, cut from one buffer.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};

/// A prime beyond any number of keys here: steps of it visit all of them in an order without a pattern.
const STRIDE: u64 = 2_654_435_761;

/// `count` keys of `width` bytes in ascending order. A clone shares the buffer.
#[derive(Clone, Debug)]
pub struct Keys {
    buffer: Bytes,
    count: u64,
    width: usize,
}

impl Keys {
    /// Makes the keys: a `k` and the number, decimal with leading zeros.
    ///
    /// # Panics
    /// When `width` is not above 20 or there is no key.
    pub fn new(count: u64, width: usize) -> Keys {
        assert!(width > 20 && count > 0, "room for any number, and at least one key");
        let mut buffer = BytesMut::with_capacity(width * usize::try_from(count).expect("64 bits"));
        let digits = width - 1;
        for index in 0..count {
            write!(buffer, "k{index:0digits$}").expect("a buffer in memory takes everything");
        }
        Keys { buffer: buffer.freeze(), count, width }
    }

    /// Key number `index`, from the beginning again after the last.
    pub fn at(&self, index: u64) -> Bytes {
        let start = usize::try_from(index % self.count).expect("64 bits") * self.width;
        self.buffer.slice(start..start + self.width)
    }

    /// The `index`th key in an order that visits all and looks random.
    pub fn spread(&self, index: u64) -> Bytes {
        self.at(index % self.count * STRIDE)
    }

    /// How many keys there are.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_ascend_and_have_their_width() {
        let keys = Keys::new(1000, 64);
        let all: Vec<Bytes> = (0..1000).map(|index| keys.at(index)).collect();
        assert!(all.is_sorted() && all.iter().all(|key| key.len() == 64));
        assert_eq!(keys.at(1000), keys.at(0));
    }

    #[test]
    fn the_spread_order_visits_each_key_once() {
        let keys = Keys::new(1000, 21);
        let all: BTreeSet<Bytes> = (0..1000).map(|index| keys.spread(index)).collect();
        assert_eq!(all.len(), 1000);
    }
}
