//! What is in an object.

use std::path::{Path, PathBuf};

use agent_ebpf::abi::names;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use super::BuildError;

/// An object's programs and maps.
#[derive(Debug)]
pub struct Contents {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Programs: section, name, instructions (8 bytes each; subprograms in `.text` are shared and listed there).
    pub programs: Vec<(String, String, u64)>,
    /// Maps: name.
    pub maps: Vec<String>,
}

/// Reads an object's symbols.
pub fn inspect(path: &Path) -> Result<Contents, BuildError> {
    let data = std::fs::read(path).map_err(|source| BuildError::File { path: path.into(), source })?;
    let file = object::File::parse(&*data)
        .map_err(|error| BuildError::Contents(format!("is no ELF file ({error})")))?;
    let mut contents =
        Contents { path: path.to_owned(), size: data.len() as u64, programs: Vec::new(), maps: Vec::new() };
    for symbol in file.symbols() {
        let Some(section) = symbol.section_index().and_then(|index| file.section_by_index(index).ok()) else {
            continue;
        };
        let (name, section) = (symbol.name().unwrap_or_default(), section.name().unwrap_or_default());
        if name.is_empty() || symbol.kind() == SymbolKind::Section {
            continue;
        }
        match symbol.kind() {
            SymbolKind::Text => contents.programs.push((section.into(), name.into(), symbol.size() / 8)),
            _ if section == ".maps" || section == "maps" => contents.maps.push(name.into()),
            _ => {}
        }
    }
    contents.programs.sort();
    contents.maps.sort();
    Ok(contents)
}

impl Contents {
    /// Whether every program and map the agent looks for is there, under its own name.
    pub fn check(&self) -> Result<(), BuildError> {
        for name in names::PROGRAMS {
            if !self.programs.iter().any(|(_, program, _)| program == name) {
                return Err(BuildError::Contents(format!("lacks program {name}")));
            }
        }
        for name in names::MAPS {
            if !self.maps.iter().any(|map| map == name) {
                return Err(BuildError::Contents(format!("lacks map {name}")));
            }
        }
        Ok(())
    }
}
