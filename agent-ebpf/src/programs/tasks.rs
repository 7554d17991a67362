//! iter/task: one record per process.
//!
//! Both figures can be had elsewhere and should not: /proc/PID/fdinfo lists an epoll instance's watches under the lock that
//! the server's own `epoll_wait` takes, and /proc/PID/maps holds the lock of the process's address space.

use core::ffi::c_void;

use agent_ebpf::abi::Task;
use aya_ebpf::helpers::generated::bpf_seq_write;

use super::kernel::{
    self, OFF_EPOLL_WATCHES, OFF_MAP_COUNT, OFF_MM, OFF_PID, OFF_REAL_CRED, OFF_TGID, OFF_USER, OFF_USER_UID,
};
use super::sockets::Meta;

/// `struct bpf_iter__task`: stable since 5.8.
#[repr(C)]
struct TaskIterator {
    meta: *const Meta,
    task: *const c_void,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn headroom_tasks(ctx: *const TaskIterator) -> i32 {
    // SAFETY: the iterator's context; the task is null on the last call and checked, as is what it leads to. Credentials are
    // freed by RCU, under which the program runs. An address space is not: of a process that ends at this moment the count may
    // be of what is there afterwards, which is no more wrong than a count of a process that is gone.
    unsafe {
        let task = (*ctx).task;
        if task.is_null() {
            return 0;
        }
        // Threads are visited too, and have all of it in common.
        let (pid, tgid): (u32, u32) = (kernel::member(task, &OFF_PID), kernel::member(task, &OFF_TGID));
        if pid != tgid {
            return 0;
        }
        let cred: *const c_void = kernel::member(task, &OFF_REAL_CRED);
        if cred.is_null() {
            return 0;
        }
        let user: *const c_void = kernel::member(cred, &OFF_USER);
        if user.is_null() {
            return 0;
        }
        let mm: *const c_void = kernel::member(task, &OFF_MM);
        let mappings: i32 = if mm.is_null() { 0 } else { kernel::member(mm, &OFF_MAP_COUNT) };
        let record = Task {
            pid,
            uid: kernel::member(user, &OFF_USER_UID),
            watches: kernel::member(user, &OFF_EPOLL_WATCHES),
            mappings: mappings as u32 as u64,
        };
        bpf_seq_write((*(*ctx).meta).seq, (&raw const record).cast(), size_of::<Task>() as u32);
    }
    0
}
