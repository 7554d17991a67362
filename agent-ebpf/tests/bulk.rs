//! No payload is taken for frames: a slice of what `cargo xtask fuzz` does with a billion bytes of each kind.

#[path = "harness/bulk.rs"]
mod bulk;
mod harness;

use bulk::{Bulk, KINDS, Kind};

/// Of each kind, masked and not.
const BYTES: u64 = 12 << 20;

fn invents_nothing(kind: Kind) {
    for masked in [true, false] {
        let mut bulk = Bulk::new(kind, masked, 1);
        let mut bytes = 0;
        while bytes < BYTES {
            bytes += bulk.trial();
        }
    }
}

macro_rules! payloads {
    ($($name:ident: $kind:ident,)*) => {
        $(#[test]
        fn $name() {
            invents_nothing(Kind::$kind);
        })*

        #[test]
        fn every_kind_of_payload_is_tested() {
            assert!(KINDS.iter().all(|(kind, _)| [$(Kind::$kind),*].contains(kind)));
        }
    };
}

payloads! {
    periodic_payload_invents_nothing: Periodic,
    zeros_invent_nothing: Zeros,
    spaces_invent_nothing: Spaces,
    json_lines_invent_nothing: JsonLines,
    json_records_invent_nothing: JsonRecords,
    deflated_payload_invents_nothing: Deflated,
    random_payload_invents_nothing: Random,
    doubles_invent_nothing: Doubles,
    unicode_text_invents_nothing: Unicode,
    tunnelled_frames_invent_nothing: Tunnel,
}
