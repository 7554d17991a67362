//! A set of connections, one bit each.

#[derive(Debug, Clone, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    /// Whether it was not there.
    pub(super) fn insert(&mut self, rank: u32) -> bool {
        let (word, bit) = place(rank);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += usize::from(new);
        new
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, rank: u32) -> bool {
        let (word, bit) = place(rank);
        let there = self.words.get(word).is_some_and(|word| word & bit != 0);
        if there {
            self.words[word] &= !bit;
            self.count -= 1;
        }
        there
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// In order.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = Vec::with_capacity(self.count);
        for (at, word) in self.words.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                ranks.push(at as u32 * 64 + left.trailing_zeros());
                left &= left - 1;
            }
        }
        ranks
    }
}

fn place(rank: u32) -> (usize, u64) {
    (rank as usize / 64, 1 << (rank % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_and_not_taken_out() {
        let mut bits = Bits::default();
        assert!([3, 64, 63, 1000].into_iter().all(|rank| bits.insert(rank)));
        assert!(!bits.insert(64) && bits.remove(63) && !bits.remove(63) && !bits.remove(70_000));
        assert_eq!((bits.ranks(), bits.len()), (vec![3, 64, 1000], 3));
    }
}
