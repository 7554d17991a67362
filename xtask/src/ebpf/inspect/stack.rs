//! Stack bytes, worked out from the instructions the way the verifier accounts them: the deepest byte a function
//! touches or points at, rounded, and summed along every chain of calls. (The three registers that an inlined `bpf_loop`
//! saves are in the verifier's printed statistics and not in what it holds against the limit.)

use std::collections::BTreeMap;

use super::code::{CALL, Function, Instruction, LOAD_IMMEDIATE_64, Place};

/// What a chain of calls may use together (MAX_BPF_STACK).
pub const STACK_LIMIT: u64 = 512;

/// The verifier counts frames in steps of 32 bytes, even empty ones. Later kernels count in steps of 16 where programs
/// are compiled to machine code; the coarser step holds everywhere.
const STEP: u64 = 32;
/// Deeper than this no offset is followed: the limit is broken by then, and a loop that moves a pointer down would be
/// followed for ever.
const BOTTOM: i64 = -8 * STACK_LIMIT as i64;

const REGISTERS: usize = 11;
const FRAME_POINTER: usize = 10;

/// For each register where in the frame it points at the lowest, if it may point there at all.
type State = [Option<i64>; REGISTERS];

/// Stack of the deepest chain of calls from a function, and the names and frames along it; `None` where a call leads
/// nowhere or in a circle.
pub(super) fn deepest(functions: &BTreeMap<Place, Function>, place: Place) -> Option<(u64, Vec<String>)> {
    let (bytes, mut chain) = chain(functions, place, 0)?;
    chain.reverse();
    Some((bytes, chain))
}

/// The chain begins with its last function.
fn chain(functions: &BTreeMap<Place, Function>, place: Place, calls: usize) -> Option<(u64, Vec<String>)> {
    // Recursion; the verifier refuses it.
    if calls > functions.len() {
        return None;
    }
    let function = functions.get(&place)?;
    let mut below = (0, Vec::new());
    for callee in &function.callees {
        let found = chain(functions, *callee, calls + 1)?;
        if found.0 > below.0 {
            below = found;
        }
    }
    let (bytes, mut chain) = below;
    let own = frame(&function.code).max(1).next_multiple_of(STEP);
    chain.push(format!("{} {own}", function.name));
    Some((bytes + own, chain))
}

/// The deepest byte of a function's own frame.
pub(super) fn frame(code: &[Instruction]) -> u64 {
    let mut states: Vec<Option<State>> = vec![None; code.len()];
    let mut start = [None; REGISTERS];
    start[FRAME_POINTER] = Some(0);
    let mut lowest = 0;
    let mut pending = vec![(0, start)];
    while let Some((at, state)) = pending.pop() {
        let (Some(instruction), Some(known)) = (code.get(at), states.get_mut(at)) else { continue };
        let merged = known.map_or(state, |known| merge(known, state));
        if *known == Some(merged) {
            continue;
        }
        *known = Some(merged);
        let mut after = merged;
        lowest = lowest.min(apply(*instruction, &mut after));
        pending.extend(next(*instruction, at).into_iter().flatten().map(|at| (at, after)));
    }
    lowest.unsigned_abs()
}

/// What holds where two ways meet: the lower offset of either.
fn merge(a: State, b: State) -> State {
    std::array::from_fn(|register| match (a[register], b[register]) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    })
}

/// Follows one instruction; returns the lowest offset it touches or forms.
fn apply(instruction: Instruction, state: &mut State) -> i64 {
    let Instruction { code, dst, src, off, imm } = instruction;
    let (Some(to), Some(from)) = (state.get(dst).copied(), state.get(src).copied()) else { return 0 };
    let mut touched = 0;
    state[dst] = match code & 7 {
        // Loads.
        1 => {
            touched = from.map_or(0, |base| base + off);
            None
        }
        // Stores change no register, except for the fetching atomics, whose result is no pointer.
        2 | 3 => {
            touched = to.map_or(0, |base| base + off);
            to
        }
        // 64-bit arithmetic: moves, and additions to and subtractions from a pointer. An unknown index only leads up.
        7 => match (code & 0xf0, code & 8 != 0) {
            (0xb0, true) => from,
            (0x00, false) => to.map(|base| (base + imm).max(BOTTOM)),
            (0x10, false) => to.map(|base| (base - imm).max(BOTTOM)),
            (0x00, true) => to.or(from),
            _ => None,
        },
        5 | 6 => to,
        _ => None,
    };
    if code == CALL {
        // Arguments and result do not survive a call.
        state[..6].fill(None);
    }
    touched.min(state[dst].unwrap_or(0)).max(BOTTOM)
}

/// The slots that may come next.
fn next(instruction: Instruction, at: usize) -> [Option<usize>; 2] {
    let jump = |by: i64| (at + 1).checked_add_signed(by as isize);
    match (instruction.code, instruction.code & 7) {
        (LOAD_IMMEDIATE_64, _) => [Some(at + 2), None],
        (0x95, _) => [None, None],
        (0x05, _) => [jump(instruction.off), None],
        (0x06, _) => [jump(instruction.imm), None],
        (CALL, _) => [Some(at + 1), None],
        (_, 5 | 6) => [Some(at + 1), jump(instruction.off)],
        _ => [Some(at + 1), None],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `code dst src off imm`.
    fn assemble(lines: &[(u8, usize, usize, i64, i64)]) -> Vec<Instruction> {
        let slot = |(code, dst, src, off, imm): &_| Instruction {
            code: *code,
            dst: *dst,
            src: *src,
            off: *off,
            imm: *imm,
        };
        lines.iter().map(slot).collect()
    }

    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const STORE: u8 = 0x7b;
    const LOAD: u8 = 0x79;
    const JUMP_IF: u8 = 0x15;
    const EXIT: u8 = 0x95;

    #[test]
    fn direct_accesses_and_pointers_count() {
        assert_eq!(frame(&assemble(&[(EXIT, 0, 0, 0, 0)])), 0);
        assert_eq!(frame(&assemble(&[(STORE, 10, 1, -24, 0), (LOAD, 1, 10, -8, 0), (EXIT, 0, 0, 0, 0)])), 24);
        // r2 = r10; r2 += -72; call helper
        let pointer = [(MOVE, 2, 10, 0, 0), (ADD, 2, 0, 0, -72), (CALL, 0, 0, 0, 26), (EXIT, 0, 0, 0, 0)];
        assert_eq!(frame(&assemble(&pointer)), 72);
        // What a map's value is offset by is none of the stack's business.
        let map = [(ADD, 1, 0, 0, -300), (STORE, 1, 2, -200, 0), (EXIT, 0, 0, 0, 0)];
        assert_eq!(frame(&assemble(&map)), 0);
    }

    #[test]
    fn a_pointer_is_followed_along_every_way() {
        // if r1 == 0 skip; r6 = r10; r6 += -40; …; *(r6 - 16) = r1
        let joined = [
            (MOVE, 6, 10, 0, 0),
            (JUMP_IF, 1, 0, 1, 0),
            (ADD, 6, 0, 0, -40),
            (STORE, 6, 1, -16, 0),
            (EXIT, 0, 0, 0, 0),
        ];
        assert_eq!(frame(&assemble(&joined)), 56);
        // loop: r6 += -8; if r1 != 0 goto loop
        let endless = [(MOVE, 6, 10, 0, 0), (ADD, 6, 0, 0, -8), (JUMP_IF, 1, 0, -2, 0), (EXIT, 0, 0, 0, 0)];
        assert_eq!(frame(&assemble(&endless)), BOTTOM.unsigned_abs());
    }

    #[test]
    fn frames_are_rounded_and_the_deepest_chain_counts() {
        let place = |address| (1, address);
        let function = |depth: i64, callees: &[u64]| Function {
            globals: Default::default(),
            name: String::new(),
            code: assemble(&[(STORE, 10, 1, -depth, 0), (EXIT, 0, 0, 0, 0)]),
            callees: callees.iter().map(|callee| place(*callee)).collect::<BTreeSet<_>>(),
        };
        let functions = BTreeMap::from([
            (place(0), function(33, &[8, 16])),
            (place(8), function(100, &[])),
            (place(16), function(0, &[24])),
            (place(24), function(96, &[])),
            (place(32), function(8, &[32])),
        ]);
        assert_eq!(deepest(&functions, place(0)).map(|(bytes, _)| bytes), Some(64 + 128), "32 + 96 tie");
        let chain = vec![" 32".to_owned(), " 96".to_owned()];
        assert_eq!(deepest(&functions, place(16)), Some((32 + 96, chain)));
        assert_eq!(deepest(&functions, place(32)), None, "recursion");
        assert_eq!(deepest(&functions, place(40)), None, "there is no such function");
    }
}
