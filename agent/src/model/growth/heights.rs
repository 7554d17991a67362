//! Heights that a count has had before: below them a rise is a recovery and foretells nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::lineage::MEMORY;

/// Of each such span the highest count is kept.
const SPAN: Duration = Duration::from_secs(300);
/// How far below a height a count is recovering, and how far above it has outgrown it: 2%, within which the peaks of like
/// days differ, or three times the square root, by which independent comings and goings make a count waver.
const SHARE: f64 = 0.02;
const DEVIATIONS: f64 = 3.0;

/// The heights of a day and a little, and the one that the count is below.
#[derive(Debug, Clone, Default)]
pub(super) struct Heights {
    /// Start of each span and its highest count.
    maxima: VecDeque<(Duration, u64)>,
    /// When and how high the count stood before it fell.
    fallen_from: Option<(Duration, u64)>,
}

impl Heights {
    /// Of a newcomer whose like have had the height `like` before.
    pub(super) fn of_newcomer(at: Duration, like: u64) -> Self {
        Self { maxima: VecDeque::new(), fallen_from: (like > 0).then_some((at, like)) }
    }

    /// Takes the count at monotonic time `at`.
    pub(super) fn observe(&mut self, at: Duration, count: u64) {
        match self.maxima.back_mut() {
            Some((start, most)) if at.saturating_sub(*start) < SPAN => *most = count.max(*most),
            _ => self.maxima.push_back((at, count)),
        }
        let forgotten = |then: Duration| at.saturating_sub(then) > MEMORY;
        while self.maxima.front().is_some_and(|(start, _)| forgotten(*start)) {
            self.maxima.pop_front();
        }
        let outgrown = |height: u64| count as f64 > height as f64 + margin(height);
        self.fallen_from = self.fallen_from.filter(|(then, height)| !forgotten(*then) && !outgrown(*height));
        if self.fallen_from.is_none() {
            let fell = |height: u64| (count as f64) < height as f64 - margin(height);
            self.fallen_from = self.highest().filter(|(_, height)| fell(*height));
        }
    }

    /// Every count was lower than it should have been.
    pub(super) fn raise(&mut self, by: u64) {
        self.maxima.iter_mut().for_each(|(_, height)| *height += by);
        if let Some((_, height)) = &mut self.fallen_from {
            *height += by;
        }
    }

    /// The height that the count has been at and has not outgrown since.
    pub(super) fn fallen_from(&self) -> Option<u64> {
        self.fallen_from.map(|(_, height)| height)
    }

    /// The highest count in memory, and when it was.
    pub(super) fn highest(&self) -> Option<(Duration, u64)> {
        // The latest of equals: it is remembered longest.
        self.maxima.iter().copied().max_by_key(|(at, height)| (*height, *at))
    }
}

fn margin(height: u64) -> f64 {
    let height = height as f64;
    (SHARE * height).max(DEVIATIONS * height.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn after(counts: impl IntoIterator<Item = u64>) -> Heights {
        let mut heights = Heights::default();
        for (minute, count) in counts.into_iter().enumerate() {
            heights.observe(MINUTE * minute as u32, count);
        }
        heights
    }

    #[test]
    fn a_count_that_only_rises_has_not_fallen() {
        assert_eq!(after((0..500).map(|minute| 100 * minute)).fallen_from(), None);
    }

    #[test]
    fn who_fell_recovers_until_the_height_is_outgrown_and_not_only_reached() {
        let mut heights = after([10_000, 0, 5_000, 10_000]);
        assert_eq!(heights.fallen_from(), Some(10_000));
        heights.observe(4 * MINUTE, 10_290);
        assert_eq!(heights.fallen_from(), Some(10_000), "300 is within three deviations");
        heights.observe(5 * MINUTE, 10_310);
        assert_eq!(heights.fallen_from(), None);
        heights.observe(6 * MINUTE, 10_100);
        assert_eq!(heights.fallen_from(), None, "as little down as up");
    }

    #[test]
    fn a_height_is_forgotten_after_a_day_and_a_little() {
        let mut heights = after([10_000, 5_000]);
        heights.observe(MINUTE * 60 * 26, 5_010);
        assert_eq!(heights.fallen_from(), Some(10_000));
        heights.observe(MINUTE * (60 * 26 + 6), 5_020);
        assert_eq!(heights.fallen_from(), None, "what is left in memory is its own rise");
        assert!(after((0..60 * 80).map(|_| 7)).maxima.len() <= 313);
    }

    #[test]
    fn a_newcomer_recovers_to_the_height_of_its_like() {
        let mut heights = Heights::of_newcomer(MINUTE, 10_000);
        heights.observe(MINUTE, 10);
        assert_eq!(heights.fallen_from(), Some(10_000));
        heights.observe(MINUTE * 2, 11_000);
        assert_eq!(heights.fallen_from(), None);
    }
}
