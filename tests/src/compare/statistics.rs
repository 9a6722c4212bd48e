//! Medians of per-pair ratios, and their spread.
//!
//! The two runs of a pair follow each other on the same machine, so what slows one slows the other;
//! their ratio keeps what absolute figures lose. Of some pairs the median ratio is the result, the
//! lowest and the highest are its spread.

use serde::Serialize;

/// A median with the lowest and the highest of what it is the median of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub low: f64,
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The highest.
    pub high: f64,
    /// How many there are.
    pub count: usize,
}

impl Spread {
    /// Of some figures; `None` when there are none, or one is not a number.
    pub fn of(figures: &[f64]) -> Option<Spread> {
        if figures.iter().any(|figure| figure.is_nan()) {
            return None;
        }
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Spread { low, median, high, count: sorted.len() })
    }

    /// Of the ratios of pairs, first by second. A pair of two zeros is equal.
    pub fn of_ratios(pairs: &[(f64, f64)]) -> Option<Spread> {
        let ratio = |&(first, second): &(f64, f64)| {
            if first == 0.0 && second == 0.0 { 1.0 } else { first / second }
        };
        Spread::of(&pairs.iter().map(ratio).collect::<Vec<_>>())
    }

    /// True if 1.0 is within the spread, to the two digits that are printed.
    pub fn contains_one(&self) -> bool {
        rounded(self.low) <= 1.0 && rounded(self.high) >= 1.0
    }
}

/// To two digits behind the point.
fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { low: 1.0, median: 2.5, high: 4.0, count: 4 });
        assert_eq!(Spread::of(&[9.0, 1.0, 2.0]).unwrap().median, 2.0);
    }

    #[test]
    fn ratios_are_taken_per_pair_before_the_median() {
        // The medians of the two columns would give 2.0.
        let spread = Spread::of_ratios(&[(1.0, 10.0), (10.0, 10.0), (10.0, 1.0)]).unwrap();
        assert_eq!(spread, Spread { low: 0.1, median: 1.0, high: 10.0, count: 3 });
    }

    #[test]
    fn nothing_and_no_number_have_no_spread() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of_ratios(&[(0.0, 0.0)]).unwrap().median, 1.0);
    }

    #[test]
    fn one_is_looked_for_in_what_is_printed() {
        let contains = |figures: &[f64]| Spread::of(figures).unwrap().contains_one();
        assert!(contains(&[0.9, 1.1]) && contains(&[1.004, 1.1]) && contains(&[0.996]));
        assert!(!contains(&[1.006, 1.1]) && !contains(&[0.9, 0.99]));
    }
}
