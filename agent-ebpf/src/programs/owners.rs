//! iter/task_file: notes in each tracked socket and each candidate which process holds it, and at which descriptor.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_sock_from_file;

use super::kernel::{self, OFF_SOCKET_SK, OFF_TGID};
use super::maps;

/// `struct bpf_iter__task_file`: stable since 5.8.
#[repr(C)]
struct TaskFileIterator {
    meta: *const c_void,
    task: *const c_void,
    fd: u32,
    reserved: u32,
    file: *mut aya_ebpf::bindings::file,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn headroom_owners(ctx: *const TaskFileIterator) -> i32 {
    // SAFETY: the iterator's context; task and file are null on the last call and checked, as is what they lead to.
    unsafe {
        let task = (*ctx).task;
        let file = (*ctx).file;
        if task.is_null() || file.is_null() {
            return 0;
        }
        let socket = bpf_sock_from_file(file);
        if socket.is_null() {
            return 0;
        }
        let sk: *mut c_void = kernel::member(socket.cast_const().cast(), &OFF_SOCKET_SK);
        if sk.is_null() {
            return 0;
        }
        let connection = maps::connection(sk);
        if !connection.is_null() {
            (*connection).pid = kernel::member(task, &OFF_TGID);
            (*connection).fd = (*ctx).fd as i32;
            return 0;
        }
        let candidate = maps::candidate(sk);
        if !candidate.is_null() {
            (*candidate).pid = kernel::member(task, &OFF_TGID);
            (*candidate).fd = (*ctx).fd as i32;
        }
    }
    0
}
