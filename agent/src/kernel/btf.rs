//! Member offsets from BTF, the kernel's description of its own types (Documentation/bpf/btf.rst).
//!
//! Only what offsets need is kept: where each type begins. Structures are searched by name, paths descend through
//! typedefs, qualifiers and anonymous members.

use std::path::Path;

use thiserror::Error;

/// Why an offset is not known.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The kernel offers no BTF.
    #[error("cannot read {path}: {source}; the kernel needs CONFIG_DEBUG_INFO_BTF")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The data is cut short or of an unknown version.
    #[error("the kernel's BTF is malformed at byte {0}")]
    Malformed(usize),
    /// There is no such member.
    #[error("this kernel's struct {structure} has no member {path}")]
    NoMember {
        /// Structure name.
        structure: String,
        /// Member path.
        path: String,
    },
}

const MAGIC: u16 = 0xeb9f;
const PTR_SIZED_HEADER: usize = 12;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const TYPE_TAG: u32 = 18;

/// A parsed BTF section.
pub struct Btf {
    data: Vec<u8>,
    /// Offset of each type's header in `data`; type ids start at 1.
    types: Vec<u32>,
    strings: usize,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_kernel() -> Result<Self, BtfError> {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        let data = std::fs::read(path)
            .map_err(|source| BtfError::Unreadable { path: path.display().to_string(), source })?;
        Self::parse(data)
    }

    /// Parses a raw BTF section.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let mut btf = Btf { data, types: Vec::new(), strings: 0 };
        if btf.u16(0)? != MAGIC || btf.byte(2)? != 1 {
            return Err(BtfError::Malformed(0));
        }
        let header = btf.u32(4)? as usize;
        let (start, len) = (header + btf.u32(8)? as usize, btf.u32(12)? as usize);
        btf.strings = header + btf.u32(16)? as usize;
        let mut at = start;
        while at < start + len {
            btf.types.push(at as u32);
            at += PTR_SIZED_HEADER + btf.trailer(at)?;
        }
        Ok(btf)
    }

    /// Byte offset of the member at `path` (`a.b.c`) in `structure`.
    pub fn offset_of(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::NoMember { structure: structure.into(), path: path.into() };
        let found = self.types.iter().map(|at| *at as usize).find(|at| {
            matches!(self.kind(*at), Ok(STRUCT | UNION))
                && self.vlen(*at).is_ok_and(|members| members > 0)
                && self.u32(*at).is_ok_and(|name| self.name_is(name, structure))
        });
        let mut at = found.ok_or_else(missing)?;
        let mut bits = 0;
        for component in path.split('.') {
            let (offset, member) = self.member(at, component)?.ok_or_else(missing)?;
            bits += offset;
            at = member;
        }
        Ok(bits / 8)
    }

    /// Bit offset and type position of a member, looked for in anonymous members too.
    fn member(&self, structure: usize, name: &str) -> Result<Option<(u32, usize)>, BtfError> {
        if !matches!(self.kind(structure)?, STRUCT | UNION) {
            return Ok(None);
        }
        let bitfields = self.u32(structure + 4)? >> 31 == 1;
        for index in 0..self.vlen(structure)? {
            let at = structure + PTR_SIZED_HEADER + index * 12;
            let (member_name, type_id, raw) = (self.u32(at)?, self.u32(at + 4)?, self.u32(at + 8)?);
            let offset = if bitfields { raw & 0x00ff_ffff } else { raw };
            let target = self.resolve(type_id)?;
            if self.name_is(member_name, name) {
                return Ok(Some((offset, target.unwrap_or(structure))));
            }
            if let (true, Some(target)) = (self.byte(self.strings + member_name as usize)? == 0, target)
                && let Some((inner, found)) = self.member(target, name)?
            {
                return Ok(Some((offset + inner, found)));
            }
        }
        Ok(None)
    }

    /// Follows typedefs and qualifiers; `None` for void.
    fn resolve(&self, mut id: u32) -> Result<Option<usize>, BtfError> {
        loop {
            let Some(at) = (id as usize).checked_sub(1) else {
                return Ok(None);
            };
            let at = *self.types.get(at).ok_or(BtfError::Malformed(self.data.len()))? as usize;
            match self.kind(at)? {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = self.u32(at + 8)?,
                _ => return Ok(Some(at)),
            }
        }
    }

    /// Bytes behind a type's header (linux/btf.h).
    fn trailer(&self, at: usize) -> Result<usize, BtfError> {
        let members = self.vlen(at)?;
        Ok(match self.kind(at)? {
            1 | 14 | 17 => 4,
            2 | 7..=12 | 16 | 18 => 0,
            3 => 12,
            STRUCT | UNION | 15 | 19 => 12 * members,
            6 | 13 => 8 * members,
            _ => return Err(BtfError::Malformed(at)),
        })
    }

    fn kind(&self, at: usize) -> Result<u32, BtfError> {
        Ok(self.u32(at + 4)? >> 24 & 0x1f)
    }

    fn vlen(&self, at: usize) -> Result<usize, BtfError> {
        Ok((self.u32(at + 4)? & 0xffff) as usize)
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        let start = self.strings + offset as usize;
        self.data.get(start..start + name.len()) == Some(name.as_bytes())
            && self.data.get(start + name.len()) == Some(&0)
    }

    fn byte(&self, at: usize) -> Result<u8, BtfError> {
        self.data.get(at).copied().ok_or(BtfError::Malformed(at))
    }

    fn u16(&self, at: usize) -> Result<u16, BtfError> {
        Ok(u16::from_ne_bytes([self.byte(at)?, self.byte(at + 1)?]))
    }

    fn u32(&self, at: usize) -> Result<u32, BtfError> {
        let bytes = self.data.get(at..at + 4).ok_or(BtfError::Malformed(at))?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section with: 1 `int`, 2 anonymous struct { int inner @32 }, 3 typedef alias → 2,
    /// 4 struct outer { anonymous @64: alias; int plain @0 }.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0inner\0alias\0outer\0plain\0";
        let (int, inner, alias, outer, plain) = (1u32, 5u32, 11u32, 17u32, 23u32);
        let mut types: Vec<u32> = Vec::new();
        types.extend([int, 1 << 24, 4, 32]);
        types.extend([0, STRUCT << 24 | 1, 8, inner, 1, 32]);
        types.extend([alias, TYPEDEF << 24, 2]);
        types.extend([outer, STRUCT << 24 | 2, 16, 0, 3, 64, plain, 1, 0]);
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_typedefs_and_anonymous_structs() {
        let btf = Btf::parse(sample()).expect("well-formed");
        assert_eq!(btf.offset_of("outer", "plain").expect("member"), 0);
        assert_eq!(btf.offset_of("outer", "inner").expect("member"), 12);
        assert!(
            matches!(btf.offset_of("outer", "in"), Err(BtfError::NoMember { .. })),
            "a prefix is no match"
        );
        assert!(matches!(btf.offset_of("nowhere", "x"), Err(BtfError::NoMember { .. })));
    }

    #[test]
    fn every_truncation_is_an_error_and_never_a_panic() {
        let whole = sample();
        for len in 0..whole.len() {
            let cut = Btf::parse(whole[..len].to_vec());
            if let Ok(btf) = cut {
                let _ = btf.offset_of("outer", "inner");
            }
        }
        assert!(Btf::parse(whole[..30].to_vec()).is_err());
    }
}
