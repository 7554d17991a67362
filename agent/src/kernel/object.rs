//! The embedded eBPF object.

/// Aligned as the ELF parser wants it.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("HEADROOM_BPF_OBJECT")));

/// The object's bytes.
pub(super) fn bytes() -> &'static [u8] {
    &ALIGNED.0
}
