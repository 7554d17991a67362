//! What is in an object.

mod code;
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use agent_ebpf::abi::names;
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex, SymbolKind};

use self::code::{Function, Place};
use super::BuildError;

pub use stack::STACK_LIMIT;

/// An object's functions, programs and maps.
#[derive(Debug)]
pub struct Contents {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Programs and the subprograms in `.text`: section, name, instructions (8 bytes each) and stack bytes, by themselves.
    pub functions: Vec<(String, String, u64, u64)>,
    /// What the kernel is given of each program, by its name.
    pub programs: BTreeMap<String, Program>,
    /// Maps: name.
    pub maps: Vec<String>,
}

/// A program with every subprogram it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Instructions (8 bytes each).
    pub instructions: u64,
    /// Stack of its deepest chain of calls, callbacks of helpers included.
    pub stack_bytes: u64,
    /// That chain: names, and the bytes of their frames.
    pub deepest: Vec<String>,
    /// Globals that are read or written.
    pub globals: BTreeSet<String>,
}

/// Reads an object.
pub fn inspect(path: &Path) -> Result<Contents, BuildError> {
    let data = std::fs::read(path).map_err(|source| BuildError::File { path: path.into(), source })?;
    let file = ElfFile64::parse(&*data)
        .map_err(|error| BuildError::Contents(format!("is no 64-bit ELF file ({error})")))?;
    let section = |index| file.section_by_index(SectionIndex(index)).ok()?.name().ok();
    let mut maps = Vec::new();
    for symbol in file.symbols() {
        let name = symbol.name().unwrap_or_default();
        let section = symbol.section_index().and_then(|index| section(index.0));
        if matches!(section, Some(".maps" | "maps"))
            && !name.is_empty()
            && symbol.kind() != SymbolKind::Section
        {
            maps.push(name.to_owned());
        }
    }
    maps.sort();
    let code = code::functions(&file);
    let mut functions = Vec::new();
    let mut programs = BTreeMap::new();
    for (place, function) in &code {
        let section = section(place.0).unwrap_or_default();
        let name = format!("{:#}", rustc_demangle::demangle(&function.name));
        let instructions = function.code.len() as u64;
        functions.push((section.to_owned(), name, instructions, stack::frame(&function.code)));
        if section != ".text" {
            programs.insert(function.name.clone(), program(&code, *place)?);
        }
    }
    functions.sort();
    Ok(Contents { path: path.to_owned(), size: data.len() as u64, functions, programs, maps })
}

fn program(functions: &BTreeMap<Place, Function>, place: Place) -> Result<Program, BuildError> {
    let (mut reached, mut pending) = (BTreeSet::new(), vec![place]);
    let (mut instructions, mut globals) = (0, BTreeSet::new());
    while let Some(place) = pending.pop() {
        if let (true, Some(function)) = (reached.insert(place), functions.get(&place)) {
            instructions += function.code.len() as u64;
            pending.extend(&function.callees);
            globals.extend(function.globals.iter().cloned());
        }
    }
    let (stack_bytes, deepest) = stack::deepest(functions, place).ok_or_else(|| {
        let name = functions.get(&place).map_or("a program", |function| &function.name);
        BuildError::Contents(format!("has calls in {name} that lead nowhere or in a circle"))
    })?;
    Ok(Program { instructions, stack_bytes, deepest, globals })
}

impl Contents {
    /// Whether every program and map the agent looks for is there, under its own name.
    pub fn check(&self) -> Result<(), BuildError> {
        let lacks = |what| {
            let why = "the names in agent_ebpf::abi::names and the programs disagree";
            Err(BuildError::Contents(format!("lacks {what}; {why}")))
        };
        for name in names::PROGRAMS {
            if !self.programs.contains_key(*name) {
                return lacks(format!("program {name}"));
            }
        }
        for name in names::MAPS {
            if !self.maps.iter().any(|map| map == name) {
                return lacks(format!("map {name}"));
            }
        }
        Ok(())
    }
}
