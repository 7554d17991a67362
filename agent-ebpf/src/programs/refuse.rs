//! Upgrades that were refused, by listener and status.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU64, Ordering};

use agent_ebpf::abi::{ListenerKey, Refusal, Role, Stat};
use aya_ebpf::bindings::BPF_NOEXIST;

use super::maps::{self, REFUSALS};
use super::packet::EGRESS;
use super::segment::Segment;
use super::{exchange, kernel};

/// Responses below this are answers to what was asked, as a rule; only the first request of a connection is looked at to
/// find out.
const MULTIPLE_CHOICES: u32 = 300;
const OK: u32 = 200;

/// A response that is no 101: counts it where the request asked for one.
#[inline(never)]
pub(super) fn refuse<const IN: bool>(sk: *mut c_void, segment: &Segment, status: u32) {
    // Interim responses (RFC 9110 section 15.2) answer nothing.
    if status < OK {
        return;
    }
    let request = exchange::answered::<IN>(sk, segment);
    if request & exchange::ASKED == 0 || (status < MULTIPLE_CHOICES && request & exchange::FIRST == 0) {
        return;
    }
    // SAFETY: `sk` is the context's socket; counts are aligned words in map values.
    unsafe {
        let tcp = kernel::tcp_sock(sk);
        if tcp.is_null() {
            return;
        }
        let role = if IN == EGRESS { Role::Server } else { Role::Client } as u16;
        // A response comes from the server's port, on either side.
        let listener = ListenerKey { netns: kernel::netns(tcp), port: segment.source_port(), role };
        let refusal = Refusal { listener, status, reserved: 0 };
        match REFUSALS.get_ptr_mut(refusal) {
            Some(count) => {
                AtomicU64::from_ptr(count).fetch_add(1, Ordering::Relaxed);
            }
            None if REFUSALS.insert(refusal, 1, u64::from(BPF_NOEXIST)).is_ok() => {}
            // Another CPU was faster, or the map is full.
            None => match REFUSALS.get_ptr_mut(refusal) {
                Some(count) => {
                    AtomicU64::from_ptr(count).fetch_add(1, Ordering::Relaxed);
                }
                None => maps::count(Stat::RefusalsUnknown),
            },
        }
    }
}
