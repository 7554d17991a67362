//! What is to be done for parked streams.

use std::collections::VecDeque;
use std::mem;

/// Places of streams and why each is to be looked after, in the order in which they first had a reason.
///
/// A place is in line once however many reasons it has and however often each comes: others raise them, and faster than they
/// can be attended to if that is what a peer wants.
#[derive(Debug, Default)]
pub(super) struct Errands {
    line: VecDeque<u32>,
    /// Reasons, by place.
    reasons: Vec<u8>,
}

impl Errands {
    pub(super) fn add(&mut self, place: u32, reasons: u8) {
        let index = place as usize;
        if index >= self.reasons.len() {
            self.reasons.resize(index + 1, 0);
        }
        let known = &mut self.reasons[index];
        if *known == 0 && reasons != 0 {
            self.line.push_back(place);
        }
        *known |= reasons;
    }

    /// The first place in line, and all its reasons. When nothing is left, nothing is kept.
    pub(super) fn next(&mut self) -> Option<(u32, u8)> {
        let place = self.line.pop_front()?;
        let reasons = self.reasons.get_mut(place as usize).map_or(0, mem::take);
        if self.line.is_empty() {
            *self = Self::default();
        }
        Some((place, reasons))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_line_once_with_all_its_reasons() {
        let mut errands = Errands::default();
        for _ in 0..1_000 {
            for place in [7, 3, 5] {
                errands.add(place, 1);
                errands.add(place, 4);
            }
        }
        errands.add(9, 0);
        assert_eq!(errands.line.len(), 3);
        assert_eq!(errands.next(), Some((7, 5)));
        errands.add(7, 2);
        errands.add(3, 8);
        assert_eq!(
            [errands.next(), errands.next(), errands.next()],
            [Some((3, 13)), Some((5, 5)), Some((7, 2))]
        );
        assert!(errands.is_empty());
        assert_eq!(errands.next(), None);
        assert_eq!((errands.line.capacity(), errands.reasons.capacity()), (0, 0));
    }
}
