//! What the suite holds, at the version that is installed, and the only cases that may be less than passed.

/// Cases for which the suite has no better verdict than "informational" unless the server does something else than fail the
/// connection or answer it, and what is seen here. Checked both ways: one that passes has to leave the list.
pub(super) const INFORMATIONAL: &[(&str, &str)] = &[
    (
        "7.1.6",
        "256 KiB, a Close and a ping in one go: whether the message is echoed before the Close is up to the server",
    ),
    ("7.13.1", "close code 5000, which no standard gives a meaning"),
    ("7.13.2", "close code 65535, which no standard gives a meaning"),
];

/// Number, name and cases of each section. There is no 8 and no 11.
pub(super) const SECTIONS: &[(u32, &str, usize)] = &[
    (1, "Framing", 16),
    (2, "Pings and pongs", 11),
    (3, "Reserved bits", 7),
    (4, "Opcodes", 10),
    (5, "Fragmentation", 20),
    (6, "UTF-8", 145),
    (7, "Closing", 37),
    (9, "Limits and performance", 54),
    (10, "Cut arbitrarily", 1),
    (12, "Compression, contents", 90),
    (13, "Compression, parameters", 126),
];

/// What `cargo xtask test` runs: everything but the long cases. Of section 9 the two smallest of each kind, of compression each
/// content, and each combination of parameters with a small message, a large one and a fragmented one.
pub(super) const SUBSET: &[&str] = &[
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*", "9.1.1", "9.1.2", "9.2.1", "9.2.2", "9.3.1",
    "9.3.2", "9.4.1", "9.4.2", "9.5.1", "9.5.2", "9.6.1", "9.6.2", "9.7.1", "9.7.2", "9.8.1", "9.8.2",
    "12.1.3", "12.2.3", "12.3.3", "12.4.3", "12.5.3", "13.1.1", "13.2.1", "13.3.1", "13.4.1", "13.5.1",
    "13.6.1", "13.7.1", "13.1.5", "13.2.5", "13.3.5", "13.4.5", "13.5.5", "13.6.5", "13.7.5", "13.1.11",
    "13.2.11", "13.3.11", "13.4.11", "13.5.11", "13.6.11", "13.7.11",
];
