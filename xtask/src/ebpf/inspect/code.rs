//! The object's functions and who calls whom.

use std::collections::{BTreeMap, BTreeSet};

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

/// Bytes of an instruction's slot.
pub(super) const SLOT: u64 = 8;
/// `BPF_LD | BPF_IMM | BPF_DW`, the instruction of two slots.
pub(super) const LOAD_IMMEDIATE_64: u8 = 0x18;
/// `BPF_JMP | BPF_CALL`.
pub(super) const CALL: u8 = 0x85;
/// `BPF_PSEUDO_CALL`: the source register of a call to another function of the object.
const PSEUDO_CALL: u8 = 1;

/// One slot (linux/bpf.h, `struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u8,
    pub(super) dst: usize,
    pub(super) src: usize,
    pub(super) off: i64,
    pub(super) imm: i64,
}

impl Instruction {
    pub(super) fn new(slot: [u8; 8]) -> Self {
        let [code, registers, off @ .., i0, i1, i2, i3] = slot;
        Self {
            code,
            dst: usize::from(registers & 15),
            src: usize::from(registers >> 4),
            off: i16::from_le_bytes(off).into(),
            imm: i32::from_le_bytes([i0, i1, i2, i3]).into(),
        }
    }
}

/// Index of a section and offset there, which identify a function.
pub(super) type Place = (usize, u64);

/// A function's instructions and the functions it calls or hands to a helper such as `bpf_loop`.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) code: Vec<Instruction>,
    pub(super) callees: BTreeSet<Place>,
    /// Globals that it refers to by a symbol of their own, as it does to all that are exported.
    pub(super) globals: BTreeSet<String>,
}

/// Every function of the object.
pub(super) fn functions(file: &ElfFile64<'_>) -> BTreeMap<Place, Function> {
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(index) = symbol.section_index() else { continue };
        let data = file.section_by_index(index).ok().and_then(|section| section.data().ok());
        let (start, end) = (symbol.address() as usize, (symbol.address() + symbol.size()) as usize);
        let Some(bytes) = data.and_then(|data| data.get(start..end)) else { continue };
        let (slots, _) = bytes.as_chunks::<8>();
        let code = slots.iter().copied().map(Instruction::new).collect();
        let name = symbol.name().unwrap_or_default().to_owned();
        let (callees, globals) = (BTreeSet::new(), BTreeSet::new());
        functions.insert((index.0, symbol.address()), Function { name, code, callees, globals });
    }
    let (targets, globals) = (targets(file), globals(file));
    for ((section, start), function) in &mut functions {
        let places = function.code.iter().enumerate().filter_map(|(slot, instruction)| {
            let at = start + slot as u64 * SLOT;
            callee(*instruction, (*section, at), targets.get(&(*section, at)).copied())
        });
        function.callees = places.collect();
        let end = *start + function.code.len() as u64 * SLOT;
        let used = globals.range((*section, *start)..(*section, end));
        function.globals = used.map(|(_, name)| name.clone()).collect();
    }
    functions
}

/// The function an instruction refers to. Its symbol, where the assembler left it to the loader, may be the function or
/// its section; the rest of the address is then in the instruction.
fn callee(instruction: Instruction, (section, at): Place, symbol: Option<Place>) -> Option<Place> {
    let add = |address: u64, slots: i64| address.checked_add_signed((slots + 1) * SLOT as i64);
    match (instruction.code, symbol) {
        (CALL, Some((section, address))) => Some((section, add(address, instruction.imm)?)),
        (CALL, None) if instruction.src == usize::from(PSEUDO_CALL) => {
            Some((section, add(at, instruction.imm)?))
        }
        (LOAD_IMMEDIATE_64, Some((section, address))) => {
            Some((section, address.checked_add_signed(instruction.imm)?))
        }
        _ => None,
    }
}

/// Symbols in executable sections that instructions refer to, by the instruction's place.
fn targets(file: &ElfFile64<'_>) -> BTreeMap<Place, Place> {
    let mut targets = BTreeMap::new();
    let executable =
        |index| file.section_by_index(index).is_ok_and(|section| section.kind() == SectionKind::Text);
    for section in file.sections().filter(|section| executable(section.index())) {
        for (at, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let Ok(symbol) = file.symbol_by_index(symbol) else { continue };
            if let Some(index) = symbol.section_index().filter(|index| executable(*index)) {
                targets.insert((section.index().0, at), (index.0, symbol.address()));
            }
        }
    }
    targets
}

/// Names of globals that instructions refer to, by the instruction's place.
fn globals(file: &ElfFile64<'_>) -> BTreeMap<Place, String> {
    let mut globals = BTreeMap::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        for (at, relocation) in section.relocations() {
            let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
            let Ok(symbol) = file.symbol_by_index(symbol) else { continue };
            if let (SymbolKind::Data, Ok(name)) = (symbol.kind(), symbol.name()) {
                globals.insert((section.index().0, at), name.to_owned());
            }
        }
    }
    globals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callees_are_found_with_and_without_a_symbol() {
        let (text, program) = (2, 4);
        let call = |src, imm| Instruction { code: CALL, dst: 0, src, off: 0, imm };
        assert_eq!(callee(call(1, 3), (text, 8), None), Some((text, 40)), "relative to the next slot");
        assert_eq!(
            callee(call(1, -1), (program, 8), Some((text, 64))),
            Some((text, 64)),
            "by its own symbol"
        );
        assert_eq!(callee(call(1, 7), (program, 8), Some((text, 0))), Some((text, 64)), "by its section's");
        assert_eq!(callee(call(0, 181), (program, 8), None), None, "a helper");
        let load = Instruction { code: LOAD_IMMEDIATE_64, imm: 0x1ca0, ..call(4, 0) };
        assert_eq!(callee(load, (program, 8), Some((text, 0))), Some((text, 0x1ca0)), "a callback");
        assert_eq!(callee(load, (program, 8), None), None, "a constant");
    }
}
