//! What befalls the packets of a wire. Seeded: the n-th packet of a direction meets the same fate in every run, whatever
//! it carries.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

/// How hostile a wire is. Rates are shares of the packets, each drawn on its own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Schedule {
    pub(crate) drop: f64,
    pub(crate) duplicate: f64,
    /// Held back behind later packets.
    pub(crate) reorder: f64,
    /// Up to this many of them,
    pub(crate) behind: u32,
    /// and no longer than this.
    pub(crate) at_most: Duration,
    /// Cut anew into pieces that overlap each other and the segments around them.
    pub(crate) overlap: f64,
    /// All of the direction stands still.
    pub(crate) delay: f64,
    /// For up to this long.
    pub(crate) pause: Duration,
}

/// What happens to one packet.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fate {
    pub(crate) dropped: bool,
    pub(crate) twice: bool,
    pub(crate) held_behind: Option<u32>,
    pub(crate) overlapping: bool,
    pub(crate) pause: Option<Duration>,
}

impl Schedule {
    /// The fate of the next packet. Takes the same numbers from `random` whatever comes of it.
    pub(crate) fn fate(&self, random: &mut Rng) -> Fate {
        let mut draw = |rate: f64| random.f64() < rate;
        let (dropped, twice) = (draw(self.drop), draw(self.duplicate));
        let (held, overlapping, paused) = (draw(self.reorder), draw(self.overlap), draw(self.delay));
        let behind = random.u32(1..=self.behind.max(1));
        let pause = self.pause.mul_f64(random.f64());
        Fate {
            dropped,
            twice,
            held_behind: held.then_some(behind),
            overlapping,
            pause: paused.then_some(pause),
        }
    }
}

/// Cuts `len` payload bytes in two that overlap, if there is room for that: each piece has `spare` bytes at most more
/// than its share.
pub(crate) fn overlapping(len: usize, random: &mut Rng) -> Option<[Range<usize>; 2]> {
    if len < 4 {
        return None;
    }
    let middle = random.usize(1..len);
    let start = random.usize(0..middle).max(middle.saturating_sub(40));
    let end = random.usize(middle..=len).min(middle + 40);
    Some([0..end, start..len])
}
