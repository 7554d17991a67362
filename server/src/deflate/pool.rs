//! Contexts that are borrowed for a message, by directions without context takeover.
//!
//! Each thread has its own shelf, so a context stays in the cache of the processor that uses it and the lock is free,
//! but for the moment in which [`tidy`] looks at all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Failure;
use super::codec::{Deflater, Inflater, Shape};

/// Contexts of a kind that a shelf keeps; more are given back to the allocator. A thread works on one message at a time, but
/// one that arrives in parts holds its decompressor meanwhile, and clients may ask for small windows.
const KEPT: usize = 4;

/// A decompressor with the largest window serves all.
const BITS: u8 = 15;

#[derive(Default)]
struct Shelf {
    deflaters: Vec<Deflater>,
    inflaters: Vec<Inflater>,
    /// Used since `tidy` last looked.
    used: bool,
}

static SHELVES: Mutex<Vec<Arc<Mutex<Shelf>>>> = Mutex::new(Vec::new());

thread_local! {
    static SHELF: Arc<Mutex<Shelf>> = {
        let shelf = Arc::<Mutex<Shelf>>::default();
        lock(&SHELVES).push(shelf.clone());
        shelf
    };
}

/// Frees contexts that no message needed since the last call, and those of threads that have ended. To be called now and
/// then by a process that wants its memory back. Whether there were any.
pub fn tidy() -> bool {
    let mut freed = false;
    lock(&SHELVES).retain(|shelf| {
        let mut kept = lock(shelf);
        if !std::mem::take(&mut kept.used) {
            freed |= !(kept.deflaters.is_empty() && kept.inflaters.is_empty());
            *kept = Shelf::default();
        }
        drop(kept);
        Arc::strong_count(shelf) > 1
    });
    freed
}

pub(super) fn deflater(shape: Shape) -> Result<Deflater, Failure> {
    let found = with_shelf(|shelf| {
        let at = shelf.deflaters.iter().position(|deflater| deflater.shape() == shape)?;
        Some(shelf.deflaters.swap_remove(at))
    });
    match found {
        Some(mut deflater) => {
            deflater.reset();
            Ok(deflater)
        }
        None => Deflater::new(shape),
    }
}

pub(super) fn inflater() -> Result<Inflater, Failure> {
    match with_shelf(|shelf| shelf.inflaters.pop()) {
        Some(mut inflater) => {
            inflater.reset();
            Ok(inflater)
        }
        None => Inflater::new(BITS),
    }
}

pub(super) fn give_deflater(deflater: Deflater) {
    with_shelf(|shelf| {
        // The oldest goes: shapes that nobody asks for any more must not fill the shelf.
        if shelf.deflaters.len() == KEPT {
            shelf.deflaters.remove(0);
        }
        shelf.deflaters.push(deflater);
        Some(())
    });
}

pub(super) fn give_inflater(inflater: Inflater) {
    with_shelf(|shelf| {
        if shelf.inflaters.len() < KEPT {
            shelf.inflaters.push(inflater);
        }
        Some(())
    });
}

fn with_shelf<T>(work: impl FnOnce(&mut Shelf) -> Option<T>) -> Option<T> {
    // Gone only while the thread ends.
    SHELF
        .try_with(|shelf| {
            let mut shelf = lock(shelf);
            shelf.used = true;
            work(&mut shelf)
        })
        .ok()
        .flatten()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contexts on this thread's shelf.
    fn shelved() -> usize {
        let mut count = 0;
        SHELF.with(|shelf| {
            let shelf = lock(shelf);
            count = shelf.deflaters.len() + shelf.inflaters.len();
        });
        count
    }

    #[test]
    fn contexts_are_used_again_until_nobody_needs_them() {
        let shape = |bits| Shape { bits, mem_level: 1, level: 1 };
        give_deflater(deflater(shape(9)).unwrap());
        give_inflater(inflater().unwrap());
        let taken = deflater(shape(9)).unwrap();
        assert_eq!(shelved(), 1, "it was taken off the shelf");
        give_deflater(taken);
        tidy();
        assert_eq!(shelved(), 2, "they were in use");
        assert!(tidy());
        assert_eq!(shelved(), 0);
        (9..=15).for_each(|bits| give_deflater(deflater(shape(bits)).unwrap()));
        assert_eq!(shelved(), KEPT);
        assert_eq!(deflater(shape(15)).unwrap().shape(), shape(15));
        assert_eq!(shelved(), KEPT - 1, "the latest stay");
    }
}
