//! The connection table's rows: filtered and sorted.

use agent::document::Connection;

use crate::view::View;

use super::columns::{Column, SortKey};
use super::filter::matches;

/// Order of the connection table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// Against the column's natural direction.
    pub inverted: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self { column: Column::Kernel, inverted: false }
    }
}

impl Sort {
    pub(super) fn next(self) -> Self {
        let place = Column::ALL.iter().position(|column| *column == self.column).unwrap_or(0);
        Self { column: Column::ALL[(place + 1) % Column::ALL.len()], inverted: false }
    }

    /// Whether the largest comes first.
    pub fn descending(self) -> bool {
        self.column.largest_first() != self.inverted
    }
}

/// The connections that pass `filter`, in order. What is unknown comes last in either direction: nobody looks for it.
pub fn rows<'a>(view: &'a View, sort: Sort, filter: &str) -> Vec<&'a Connection> {
    let mut keyed: Vec<(SortKey<'a>, &Connection)> = view
        .connections()
        .filter(|connection| matches(filter, connection, view))
        .map(|connection| (sort.column.key(connection, view), connection))
        .collect();
    // Stable, and the view iterates by id: equal rows do not change places between two frames.
    keyed.sort_by(|(a, _), (b, _)| {
        let unknown = |key: &SortKey| *key == SortKey::Unknown;
        unknown(a).cmp(&unknown(b)).then_with(|| if sort.descending() { b.cmp(a) } else { a.cmp(b) })
    });
    keyed.into_iter().map(|(_, connection)| connection).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn view() -> View {
        let mut view = View::default();
        fixture::recording(1).iter().for_each(|envelope| view.apply(envelope));
        view
    }

    #[test]
    fn unknown_comes_last_in_both_directions() {
        let view = view();
        let sort = Sort::default();
        for sort in [sort, Sort { inverted: true, ..sort }] {
            let rows = rows(&view, sort, "");
            assert_eq!(rows.len(), fixture::CONNECTIONS as usize);
            assert_eq!(rows.last().and_then(|row| row.memory.kernel_bytes), None);
            let known: Vec<_> = rows.iter().filter_map(|row| row.memory.kernel_bytes).collect();
            assert!(known.is_sorted_by(|a, b| if sort.descending() { a >= b } else { a <= b }));
        }
    }

    #[test]
    fn every_column_sorts_every_row() {
        let view = view();
        let mut sort = Sort::default();
        for _ in Column::ALL {
            assert_eq!(rows(&view, sort, "").len(), fixture::CONNECTIONS as usize);
            sort = sort.next();
        }
        assert_eq!(sort, Sort::default(), "the columns go round");
    }

    #[test]
    fn filters_by_address_process_and_command() {
        let view = view();
        let count = |filter| rows(&view, Sort::default(), filter).len();
        assert_eq!(count(":40002"), 1);
        assert_eq!(count("1234"), fixture::CONNECTIONS as usize - 1);
        assert_eq!(count("ws-serv"), fixture::CONNECTIONS as usize - 1);
        assert_eq!(count("nowhere"), 0);
    }
}
