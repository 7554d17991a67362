//! A figure measured several times.

use std::fmt;

use serde_json::{Value, json};

/// Its values, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Figure(Vec<f64>);

impl Figure {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// Of an even number the mean of the middle two; `None` of none.
    pub(super) fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(self.0[middle]),
            _ => Some(f64::midpoint(self.0[middle - 1], self.0[middle])),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "median": self.median(), "least": self.0.first(), "most": self.0.last(), "count": self.0.len() })
    }
}

/// `median (least–most)` with the precision asked for, two places if none was.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = f.precision().unwrap_or(2);
        let text = match (self.median(), self.0.as_slice()) {
            (Some(median), [least, .., most]) => {
                format!("{median:.places$} ({least:.places$}–{most:.places$})")
            }
            (Some(median), _) => format!("{median:.places$}"),
            (None, _) => "–".into(),
        };
        match f.width() {
            Some(width) => write!(f, "{text:>width$}"),
            None => f.write_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(Figure::of([]).median(), None);
        assert_eq!(Figure::of([3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Figure::of([4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
    }

    #[test]
    fn a_figure_shows_its_spread() {
        assert_eq!(Figure::of([3.0, 1.0, 2.0]).to_string(), "2.00 (1.00–3.00)");
        assert_eq!(format!("{:>10.0}", Figure::of([7.0])), "         7");
        assert_eq!(Figure::of([]).to_string(), "–");
        assert_eq!(Figure::of([]).json()["median"], Value::Null);
    }
}
