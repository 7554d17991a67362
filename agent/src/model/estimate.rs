//! A number that was estimated, and how far it can be trusted.

use crate::document::Range;

/// An estimate with its interval and the observations behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number itself.
    pub value: f64,
    /// Lower end of the interval.
    pub least: f64,
    /// Upper end of the interval.
    pub most: f64,
    /// Observations behind it; 0 where it is a definition (one descriptor a socket) and nothing was observed.
    pub samples: u64,
}

impl Estimate {
    /// A number that holds by definition.
    pub const fn exact(value: f64) -> Self {
        Self { value, least: value, most: value, samples: 0 }
    }

    /// Whether it holds by definition.
    pub fn is_exact(&self) -> bool {
        self.samples == 0
    }

    /// The interval as a document; none for what holds by definition.
    pub fn range(&self) -> Option<Range> {
        (!self.is_exact()).then_some(Range { least: self.least, most: Some(self.most) })
    }

    /// The same with each number changed; `change` must not turn their order around.
    pub fn map(self, change: impl Fn(f64) -> f64) -> Self {
        Self { value: change(self.value), least: change(self.least), most: change(self.most), ..self }
    }
}

impl std::ops::Add for Estimate {
    type Output = Self;

    /// Ends are added: errors are taken to go the same way, which is the careful assumption. Samples: the fewer of the two.
    fn add(self, other: Self) -> Self {
        let samples = match (self.samples, other.samples) {
            (0, some) | (some, 0) => some,
            (one, two) => one.min(two),
        };
        Self {
            value: self.value + other.value,
            least: self.least + other.least,
            most: self.most + other.most,
            samples,
        }
    }
}
