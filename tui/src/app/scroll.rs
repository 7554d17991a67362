//! A window over lines.

/// Which lines of something long are on the screen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scroll {
    /// The selected line, where lines can be selected.
    pub index: usize,
    offset: usize,
    height: usize,
    lines: usize,
}

impl Scroll {
    /// Tells the window how many lines it shows of how many, and returns the first of them.
    pub fn fit(&mut self, height: usize, lines: usize) -> usize {
        self.height = height;
        self.lines = lines;
        self.offset = self.offset.min(self.end());
        self.offset
    }

    /// Like [`Scroll::fit`], and moves the window just so far that `index` is in it.
    pub fn reveal(&mut self, index: usize, height: usize, lines: usize) -> usize {
        self.index = index;
        self.offset = self.offset.min(index).max((index + 1).saturating_sub(height));
        self.fit(height, lines)
    }

    /// Lines that a page key moves by: one less than are shown, so that one is seen twice.
    pub fn page(&self) -> usize {
        self.height.saturating_sub(1).max(1)
    }

    pub(super) fn by(&mut self, lines: isize) {
        self.offset = self.offset.saturating_add_signed(lines).min(self.end());
    }

    pub(super) fn top(&mut self) {
        self.offset = 0;
    }

    fn end(&self) -> usize {
        self.lines.saturating_sub(self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_what_there_is() {
        let mut window = Scroll::default();
        assert_eq!(window.fit(10, 25), 0);
        window.by(isize::MAX);
        assert_eq!(window.fit(10, 25), 15);
        assert_eq!(window.fit(10, 12), 2, "lines went away");
        window.by(isize::MIN);
        assert_eq!(window.fit(10, 12), 0);
    }

    #[test]
    fn follows_the_selected_line_no_further_than_needed() {
        let mut window = Scroll::default();
        assert_eq!(window.reveal(9, 10, 100), 0);
        assert_eq!(window.reveal(10, 10, 100), 1);
        assert_eq!(window.reveal(5, 10, 100), 1);
        assert_eq!(window.reveal(0, 10, 100), 0);
    }
}
