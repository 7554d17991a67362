//! What zlib keeps for a connection that compresses, by the formulas of its own zconf.h: deflate 2^(windowBits+2) +
//! 2^(memLevel+9), inflate 2^windowBits + about 7 KiB, "plus a few kilobytes for small objects" of deflate.
//!
//! Measured of C zlib's compressor: 268,352 bytes for window bits 15 and memLevel 8, 30,782 for 12 and 4, 18,492 for 11 and 3, 11,324 for 10 and 1, 9,281 for 9 and 1. Each is the formula plus [`SMALL_OBJECTS`], to a few bytes. Other
//! implementations differ: zlib-rs takes 380,225 and 251,168 bytes at window bits 15 and 9, and memLevel cannot help there.

use std::ops::RangeInclusive;

/// Window sizes that raw deflate can be told, as logarithms. RFC 7692 allows 8, zlib's raw deflate cannot do it.
pub const WINDOW_BITS: RangeInclusive<u8> = 9..=15;
/// Sizes of deflate's hash table, as zlib numbers them.
pub const MEM_LEVELS: RangeInclusive<u8> = 1..=9;
/// zlib's defaults, which are what a server has that sets nothing.
pub const DEFAULT_WINDOW_BITS: u8 = 15;
/// The same for memLevel.
pub const DEFAULT_MEM_LEVEL: u8 = 8;

/// Bytes that a compressor takes beyond the formula: its state and what the allocator adds (measured).
pub const SMALL_OBJECTS: u64 = 6_209;

/// Bytes of a compressor.
pub const fn deflate_bytes(window_bits: u8, mem_level: u8) -> u64 {
    (1 << (window_bits + 2)) + (1 << (mem_level + 9))
}

/// Bytes of a decompressor whose window is in use.
pub const fn inflate_bytes(window_bits: u8) -> u64 {
    const STATE: u64 = 7 << 10;
    (1 << window_bits) + STATE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_and_the_small_objects_are_what_was_measured() {
        let rows = [(15, 8, 268_352), (12, 4, 30_782), (11, 3, 18_492), (10, 1, 11_324), (9, 1, 9_281)];
        for (window_bits, mem_level, measured) in rows {
            let model = deflate_bytes(window_bits, mem_level) + SMALL_OBJECTS;
            assert!(model.abs_diff(measured) <= 5, "{model} for {measured}");
        }
        assert_eq!(deflate_bytes(15, 8), 262_144);
        // 7.3 KB, and the window once used.
        assert!((inflate_bytes(15) - (1 << 15)).abs_diff(7_300) < 200);
    }
}
