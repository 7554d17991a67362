//! Raw deflate by C zlib, with windowBits and memLevel of our choice.
//!
//! The bytes that all contexts hold are counted where zlib asks for them: [`allocated`] is measured, not computed.

use std::ffi::{c_int, c_uint, c_void};
use std::mem::size_of;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libz_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_DATA_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_NEED_DICT, Z_NO_FLUSH, Z_OK,
    Z_STREAM_END, Z_SYNC_FLUSH, deflate, deflateEnd, deflateInit2_, deflateReset, inflate, inflateEnd,
    inflateInit2_, inflateReset, inflateSetDictionary, z_stream, zlibVersion,
};

use super::Failure;

/// What ends every message on its way through a compressor and is not sent (RFC 7692 section 7.2.1).
pub const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Free output that zlib is offered at least: with six bytes or less it may repeat the marker of a flush.
const ROOM: usize = 64;

// In zlib.h, but not among libz-sys's declarations; it links them all the same.
unsafe extern "C" {
    fn inflateGetDictionary(stream: *mut z_stream, dictionary: *mut u8, length: *mut c_uint) -> c_int;
    fn inflateResetKeep(stream: *mut z_stream) -> c_int;
}

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes that the contexts of this process hold now, as the allocator counts them.
pub fn allocated() -> usize {
    HELD.load(Ordering::Relaxed)
}

unsafe extern "C" fn allocate(_: *mut c_void, items: c_uint, size: c_uint) -> *mut c_void {
    let Some(bytes) = (items as usize).checked_mul(size as usize) else {
        return ptr::null_mut();
    };
    // SAFETY: malloc takes any size; malloc_usable_size takes its result, null included.
    unsafe {
        let memory = libc::malloc(bytes);
        HELD.fetch_add(libc::malloc_usable_size(memory), Ordering::Relaxed);
        memory
    }
}

unsafe extern "C" fn release(_: *mut c_void, memory: *mut c_void) {
    // SAFETY: zlib gives back what it got from `allocate`, once.
    unsafe {
        HELD.fetch_sub(libc::malloc_usable_size(memory), Ordering::Relaxed);
        libc::free(memory);
    }
}

/// A stream that no call has been made on. Boxed, because zlib's state points back to it.
fn blank() -> Box<z_stream> {
    Box::new(z_stream {
        next_in: ptr::null_mut(),
        avail_in: 0,
        total_in: 0,
        next_out: ptr::null_mut(),
        avail_out: 0,
        total_out: 0,
        msg: ptr::null_mut(),
        state: ptr::null_mut(),
        zalloc: allocate,
        zfree: release,
        opaque: ptr::null_mut(),
        data_type: 0,
        adler: 0,
        reserved: 0,
    })
}

/// Points `stream` at buffers that live for the next call only, and says how much of each it was given: zlib counts in
/// 32 bits.
fn lend(stream: &mut z_stream, input: &[u8], output: *mut u8, room: usize) -> (usize, usize) {
    let lent_in = c_uint::try_from(input.len()).unwrap_or(c_uint::MAX);
    let lent_out = c_uint::try_from(room).unwrap_or(c_uint::MAX);
    // zlib does not write to its input, whatever the pointer's type says.
    stream.next_in = input.as_ptr().cast_mut();
    stream.avail_in = lent_in;
    stream.next_out = output;
    stream.avail_out = lent_out;
    (lent_in as usize, lent_out as usize)
}

/// A compressor's memory and effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// windowBits, 9 to 15.
    pub bits: u8,
    /// memLevel, 1 to 9.
    pub mem_level: u8,
    /// Level, 0 to 9.
    pub level: u8,
}

/// A compressor of raw deflate.
pub struct Deflater {
    stream: Box<z_stream>,
    shape: Shape,
}

// SAFETY: the state is owned by this value alone and zlib ties nothing to a thread.
unsafe impl Send for Deflater {}

impl Deflater {
    /// # Errors
    /// When there is no memory, or zlib knows no such shape.
    pub fn new(shape: Shape) -> Result<Self, Failure> {
        let mut stream = blank();
        // SAFETY: the stream is initialized as zlib asks and stays where it is; negative bits mean raw deflate.
        let outcome = unsafe {
            deflateInit2_(
                &raw mut *stream,
                c_int::from(shape.level),
                Z_DEFLATED,
                -c_int::from(shape.bits),
                c_int::from(shape.mem_level),
                Z_DEFAULT_STRATEGY,
                zlibVersion(),
                size_of::<z_stream>() as c_int,
            )
        };
        if outcome == Z_OK { Ok(Self { stream, shape }) } else { Err(Failure::Memory) }
    }

    /// As it was made.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Forgets everything that went through.
    pub fn reset(&mut self) {
        // SAFETY: the stream was initialized by deflateInit2_ and is ours.
        unsafe { deflateReset(&raw mut *self.stream) };
    }

    /// Appends to `output` what there is of `input`'s compressed form so far.
    ///
    /// # Errors
    /// When zlib fails, which it has no reason to.
    pub fn push(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(), Failure> {
        self.run(input, output, Z_NO_FLUSH)
    }

    /// Appends the rest of what was pushed, up to a byte's boundary. It ends with [`TAIL`].
    ///
    /// # Errors
    /// As for [`Deflater::push`].
    pub fn flush(&mut self, output: &mut Vec<u8>) -> Result<(), Failure> {
        self.run(&[], output, Z_SYNC_FLUSH)
    }

    fn run(&mut self, mut input: &[u8], output: &mut Vec<u8>, flush: c_int) -> Result<(), Failure> {
        loop {
            output.reserve(ROOM.max(input.len() / 2));
            let room = output.spare_capacity_mut();
            let (lent_in, lent_out) = lend(&mut self.stream, input, room.as_mut_ptr().cast(), room.len());
            // SAFETY: the stream is initialized and ours, and what it points at lives for the call. zlib writes to the
            // output only, and no more than it was lent.
            let outcome = unsafe { deflate(&raw mut *self.stream, flush) };
            let made = lent_out - self.stream.avail_out as usize;
            // SAFETY: zlib has initialized as many bytes of the spare room.
            unsafe { output.set_len(output.len() + made) };
            input = &input[lent_in - self.stream.avail_in as usize..];
            match outcome {
                Z_OK | Z_BUF_ERROR if self.stream.avail_out > 0 && input.is_empty() => return Ok(()),
                Z_OK => {}
                _ => return Err(Failure::Memory),
            }
        }
    }
}

impl Drop for Deflater {
    fn drop(&mut self) {
        // SAFETY: the stream was initialized by deflateInit2_, is ours, and is not used again.
        unsafe { deflateEnd(&raw mut *self.stream) };
    }
}

/// A decompressor of raw deflate.
pub struct Inflater {
    stream: Box<z_stream>,
    /// A last block has ended and nothing came after it.
    ended: bool,
}

// SAFETY: as for `Deflater`.
unsafe impl Send for Inflater {}

/// What a call of [`Inflater::push`] did, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Input taken.
    pub used: usize,
    /// Output made.
    pub made: usize,
}

impl Inflater {
    /// `bits` are those of the compressor's window, or more.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(bits: u8) -> Result<Self, Failure> {
        let mut stream = blank();
        // SAFETY: as in `Deflater::new`.
        let outcome = unsafe {
            inflateInit2_(&raw mut *stream, -c_int::from(bits), zlibVersion(), size_of::<z_stream>() as c_int)
        };
        if outcome == Z_OK { Ok(Self { stream, ended: false }) } else { Err(Failure::Memory) }
    }

    /// One that goes on where another stopped whose [`Inflater::history`] this is.
    ///
    /// # Errors
    /// As for [`Inflater::new`].
    pub fn resumed(bits: u8, history: &[u8]) -> Result<Self, Failure> {
        let mut inflater = Self::new(bits)?;
        let length = c_uint::try_from(history.len()).map_err(|_| Failure::Memory)?;
        // SAFETY: the stream is initialized and ours; zlib copies `length` bytes from a slice of that length.
        let outcome = unsafe { inflateSetDictionary(&raw mut *inflater.stream, history.as_ptr(), length) };
        if outcome == Z_OK { Ok(inflater) } else { Err(Failure::Memory) }
    }

    /// Forgets everything that went through.
    pub fn reset(&mut self) {
        self.ended = false;
        // SAFETY: the stream was initialized by inflateInit2_ and is ours.
        unsafe { inflateReset(&raw mut *self.stream) };
    }

    /// Decompresses some of `input` into `output`. When it leaves output free, all input was taken.
    ///
    /// # Errors
    /// When the input is corrupt.
    pub fn push(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Failure> {
        self.run(input, output, Z_SYNC_FLUSH)
    }

    /// Decompresses some of `tail`, what is left of [`TAIL`] at the end of a message.
    ///
    /// # Errors
    /// When the message was corrupt: it must end where a block does.
    pub fn finish(&mut self, tail: &[u8], output: &mut [u8]) -> Result<Progress, Failure> {
        /// What zlib says of a stream that stands at the start of a block: no bit of its last byte is unused, and the
        /// block before was not the last one.
        const AT_BLOCK: c_int = 128;
        if self.ended {
            // A last block was the message's end. The next message starts a new one.
            return Ok(Progress { used: tail.len(), made: 0 });
        }
        let progress = self.run(tail, output, Z_BLOCK)?;
        let whole = progress.used == tail.len() && progress.made < output.len();
        if whole && self.stream.data_type != AT_BLOCK { Err(Failure::Corrupt) } else { Ok(progress) }
    }

    fn run(&mut self, input: &[u8], output: &mut [u8], flush: c_int) -> Result<Progress, Failure> {
        let mut progress = Progress { used: 0, made: 0 };
        loop {
            let (rest, room) = (&input[progress.used..], &mut output[progress.made..]);
            let (lent_in, lent_out) = lend(&mut self.stream, rest, room.as_mut_ptr(), room.len());
            // SAFETY: the stream is initialized and ours, and what it points at lives for the call. zlib writes to the
            // output only, and no more than it was lent.
            let outcome = unsafe { inflate(&raw mut *self.stream, flush) };
            progress.used += lent_in - self.stream.avail_in as usize;
            progress.made += lent_out - self.stream.avail_out as usize;
            match outcome {
                Z_OK | Z_BUF_ERROR => {}
                Z_STREAM_END => {
                    // More blocks may follow a last one, and may refer to what came before (RFC 7692 section 7.2.3.4).
                    // SAFETY: the stream is initialized and ours.
                    unsafe { inflateResetKeep(&raw mut *self.stream) };
                }
                Z_DATA_ERROR | Z_NEED_DICT => return Err(Failure::Corrupt),
                _ => return Err(Failure::Memory),
            }
            if outcome == Z_STREAM_END {
                self.ended = true;
            } else if self.stream.avail_in as usize != lent_in {
                self.ended = false;
            }
            // Nothing left to take, or no room.
            let stuck = outcome == Z_BUF_ERROR;
            if stuck || progress.made == output.len() || progress.used == input.len() {
                return Ok(progress);
            }
        }
    }

    /// Readies it for the next message of the same stream.
    pub fn begin(&mut self) {
        self.ended = false;
    }

    /// The bytes that what comes next may refer to, as far as there are any: at most the window.
    pub fn history(&mut self) -> Vec<u8> {
        let mut length = 0;
        // SAFETY: the stream is initialized and ours; without a buffer only the length is told.
        unsafe { inflateGetDictionary(&raw mut *self.stream, ptr::null_mut(), &raw mut length) };
        let mut history = vec![0; length as usize];
        // SAFETY: the buffer has the length that zlib just told.
        unsafe { inflateGetDictionary(&raw mut *self.stream, history.as_mut_ptr(), &raw mut length) };
        history
    }
}

impl Drop for Inflater {
    fn drop(&mut self) {
        // SAFETY: the stream was initialized by inflateInit2_, is ours, and is not used again.
        unsafe { inflateEnd(&raw mut *self.stream) };
    }
}
