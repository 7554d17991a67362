//! Where members of kernel structures are, and which programs cannot do without one that this kernel lacks.

use std::collections::BTreeMap;

use agent_ebpf::abi::names;

use super::btf::BtfError;

/// Programs and the globals each refers to, in subprograms too: read from the object when it was built, so nobody has to keep a
/// list of them.
const GLOBALS: &[(&str, &[&str])] = include!(concat!(env!("OUT_DIR"), "/globals.rs"));

/// What stands for an offset that is not known. No program that reads there is loaded, or the verifier refuses it.
const ABSENT: u32 = u32::MAX;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// The globals and their values.
    pub(super) values: Vec<(&'static str, u32)>,
    /// Programs that read what is missing, and what that is.
    pub(super) unusable: BTreeMap<&'static str, BtfError>,
}

impl Offsets {
    /// Asks `offset_of` for each of [`names::OFFSETS`]. A member that is missing costs the programs that read it; what they
    /// are worth is for the caller to judge. BTF that cannot be read at all is an error.
    pub(super) fn resolve(offset_of: impl Fn(&str, &str) -> Result<u32, BtfError>) -> Result<Self, BtfError> {
        let mut offsets = Self::default();
        for (global, structure, path) in names::OFFSETS {
            let value = match offset_of(structure, path) {
                Err(BtfError::NoMember { structure, path }) => {
                    // The programs look themselves whether an optional one is there.
                    if !names::OPTIONAL_OFFSETS.contains(global) {
                        for program in readers(global) {
                            let (structure, path) = (structure.clone(), path.clone());
                            offsets.unusable.entry(program).or_insert(BtfError::NoMember { structure, path });
                        }
                    }
                    ABSENT
                }
                offset => offset?,
            };
            offsets.values.push((global, value));
        }
        Ok(offsets)
    }
}

/// Programs that refer to a global.
fn readers(global: &str) -> impl Iterator<Item = &'static str> {
    GLOBALS.iter().filter(move |(_, globals)| globals.contains(&global)).map(|(program, _)| *program)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::kernel::HOOKS;

    /// Programs that are lost on a kernel without one member.
    fn lost(missing: &str) -> BTreeSet<&'static str> {
        let found = Offsets::resolve(|structure, path| match path == missing {
            true => Err(BtfError::NoMember { structure: structure.into(), path: path.into() }),
            false => Ok(8),
        })
        .expect("a missing member is no error by itself");
        assert_eq!(found.values.len(), names::OFFSETS.len());
        let absent: Vec<_> = found.values.iter().filter(|(_, value)| *value == ABSENT).collect();
        assert_eq!(absent.len(), 1, "{missing}");
        for reason in found.unusable.values() {
            assert!(reason.to_string().ends_with(&format!("has no member {missing}")), "{reason}");
        }
        found.unusable.into_keys().collect()
    }

    #[test]
    fn a_missing_member_costs_exactly_the_programs_that_read_it() {
        assert_eq!(lost("map_count"), BTreeSet::from([names::TASKS]));
        assert_eq!(lost("epoll_watches.count"), BTreeSet::from([names::TASKS]));
        assert_eq!(lost("sk"), BTreeSet::from([names::OWNERS]));
        assert_eq!(lost("tgid"), BTreeSet::from([names::OWNERS, names::TASKS]));
        assert_eq!(lost("sk_omem_alloc"), BTreeSet::from([names::DESTROY, names::SOCKETS]));
        assert_eq!(lost("sk_drops"), BTreeSet::new(), "it says so itself");
        assert!(lost("rcv_nxt").contains(names::INGRESS), "without it nothing can be followed");
    }

    #[test]
    fn every_offset_is_read_by_some_program_and_every_hook_has_its_program() {
        for (global, ..) in names::OFFSETS {
            assert!(readers(global).next().is_some(), "{global} is read by nobody");
        }
        for hook in HOOKS {
            assert!(GLOBALS.iter().any(|(program, _)| *program == hook.program), "{}", hook.name);
        }
    }

    #[test]
    fn btf_that_cannot_be_read_is_an_error() {
        assert!(matches!(Offsets::resolve(|_, _| Err(BtfError::Malformed(7))), Err(BtfError::Malformed(7))));
    }
}
