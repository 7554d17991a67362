//! Reading what the programs gather: sweeps, totals, life-cycle events, statistics.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use agent_ebpf::abi::{ListenerKey, ListenerTotals, Refusal, Stat, Task, event, names};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use aya::programs::Iter;
use thiserror::Error;

use super::iterator::Iterator;
use super::load::{HOOKS, Programs};
use super::namespaces::{Unreached, Which};
use super::record::{Handshake, MapValue, Socket, split};
use crate::document::Degraded;

/// Network namespaces that are named where several cannot be visited.
const NAMED: usize = 4;

/// Why a reading failed.
#[derive(Debug, Error)]
pub enum ReadError {
    /// An iterator could not be created.
    #[error("creating the iterator {program}: {reason}")]
    Iterator {
        /// Program name.
        program: &'static str,
        /// Why.
        reason: String,
    },
    /// An iterator could not be read.
    #[error("reading the iterator: {0}")]
    Read(#[from] io::Error),
    /// A map could not be read.
    #[error("reading a map: {0}")]
    Map(#[from] MapError),
    /// A map is missing.
    #[error("the object has no map {0}")]
    NoMap(&'static str),
}

/// A life-cycle event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifecycle {
    /// A connection is tracked from now on.
    Opened(Box<Handshake>),
    /// A tracked socket was destroyed.
    Closed(Box<Socket>),
}

/// What a sweep has to say beside the sockets it visited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// CPU time it took on threads other than the caller's.
    pub cpu: Duration,
    /// Where it could not go, and why.
    pub degraded: Vec<Degraded>,
}

/// What the agent asks of the kernel side, so that the engine can be driven without one.
pub trait Probes {
    /// Visits every tracked socket, in whichever network namespace it is.
    fn sweep(&mut self, visit: &mut dyn FnMut(&Socket)) -> Result<Swept, ReadError>;
    /// Begins a pass over tracked sockets that is read a page at a time.
    fn begin_pages(&mut self) -> Result<(), ReadError>;
    /// Visits about `number` more sockets of that pass; whether there may be others behind them.
    fn next_page(&mut self, number: usize, visit: &mut dyn FnMut(&Socket)) -> Result<bool, ReadError>;
    /// Notes in each tracked socket which process holds it.
    fn find_owners(&mut self) -> Result<(), ReadError>;
    /// Visits every process.
    fn tasks(&mut self, visit: &mut dyn FnMut(&Task)) -> Result<(), ReadError>;
    /// Has connections older than the programs watched until it is known what they are.
    fn find_candidates(&mut self) -> Result<(), ReadError>;
    /// Refused upgrades since the programs attached.
    fn refusals(&mut self) -> Result<Vec<(Refusal, u64)>, ReadError>;
    /// Sums by listener since the programs attached, over all CPUs.
    fn listeners(&mut self) -> Result<Vec<(ListenerKey, ListenerTotals)>, ReadError>;
    /// Drains the ring buffer. Programs never wake the reader, so this is called at the agent's own pace.
    fn events(&mut self, visit: &mut dyn FnMut(Lifecycle)) -> Result<(), ReadError>;
    /// A count of things that went by unreported, over all CPUs.
    fn stat(&mut self, stat: Stat) -> Result<u64, ReadError>;
    /// Mean run time of the packet programs in nanoseconds, where the kernel keeps run-time statistics.
    fn packet_nanoseconds(&mut self) -> Option<f64>;
}

impl Probes for Programs {
    fn sweep(&mut self, visit: &mut dyn FnMut(&Socket)) -> Result<Swept, ReadError> {
        let iterator = self.iterator(names::SOCKETS)?;
        records(open(names::SOCKETS, &iterator)?, Socket::split, visit)?;
        let connections = self.connections_by_namespace()?;
        let which = wanted(&connections);
        let pass = self.namespaces.for_each(
            &which,
            move || iterator.open(),
            |file| records(file, Socket::split, &mut *visit),
        );
        Ok(Swept { cpu: pass.cpu, degraded: degraded(&pass.unreached, &connections) })
    }

    fn begin_pages(&mut self) -> Result<(), ReadError> {
        let file = open(names::SOCKETS, &*self.iterator(names::SOCKETS)?)?;
        let which = wanted(&self.connections_by_namespace()?);
        let namespaces = self.namespaces.list(&which).into_iter().collect();
        self.pages = Some(Pages { current: Records::new(file), namespaces });
        Ok(())
    }

    fn next_page(&mut self, number: usize, visit: &mut dyn FnMut(&Socket)) -> Result<bool, ReadError> {
        let Some(mut pages) = self.pages.take() else {
            return Ok(false);
        };
        let mut visited = 0;
        loop {
            let more = pages.current.page(number.saturating_sub(visited), Socket::split, &mut |socket| {
                visited += 1;
                visit(socket);
            })?;
            if !more {
                let Some(namespace) = pages.namespaces.pop() else {
                    return Ok(false);
                };
                let iterator = self.iterator(names::SOCKETS)?;
                // A namespace that cannot be visited is told of by the ordinary sweeps.
                if let Ok(file) = self.namespaces.open_in(namespace, move || iterator.open()) {
                    pages.current = Records::new(file);
                }
            }
            if visited >= number {
                self.pages = Some(pages);
                return Ok(true);
            }
        }
    }

    fn find_owners(&mut self) -> Result<(), ReadError> {
        Ok(run_through(open(names::OWNERS, &*self.iterator(names::OWNERS)?)?)?)
    }

    fn tasks(&mut self, visit: &mut dyn FnMut(&Task)) -> Result<(), ReadError> {
        Ok(records(open(names::TASKS, &*self.iterator(names::TASKS)?)?, split, visit)?)
    }

    fn find_candidates(&mut self) -> Result<(), ReadError> {
        let iterator = self.iterator(names::CANDIDATES)?;
        run_through(open(names::CANDIDATES, &iterator)?)?;
        let pass = self.namespaces.for_each(&Which::All, move || iterator.open(), run_through);
        // One of them stands for all: the reason is the same as a rule.
        match pass.unreached.first_key_value() {
            None => Ok(()),
            Some((namespace, why)) => Err(ReadError::Iterator {
                program: names::CANDIDATES,
                reason: format!("in network namespace {namespace}: {why}"),
            }),
        }
    }

    fn refusals(&mut self) -> Result<Vec<(Refusal, u64)>, ReadError> {
        let map = self.ebpf.map(names::REFUSALS).ok_or(ReadError::NoMap(names::REFUSALS))?;
        let map = HashMap::<_, MapValue<Refusal>, u64>::try_from(map)?;
        map.iter()
            .map(|entry| entry.map(|(MapValue(key), count)| (key, count)).map_err(ReadError::from))
            .collect()
    }

    fn listeners(&mut self) -> Result<Vec<(ListenerKey, ListenerTotals)>, ReadError> {
        let slots = self.ebpf.map(names::LISTENERS).ok_or(ReadError::NoMap(names::LISTENERS))?;
        let slots = HashMap::<_, MapValue<ListenerKey>, u32>::try_from(slots)?;
        let totals = self.ebpf.map(names::TOTALS).ok_or(ReadError::NoMap(names::TOTALS))?;
        let totals = PerCpuArray::<_, MapValue<ListenerTotals>>::try_from(totals)?;
        let mut sums = Vec::new();
        for entry in slots.iter() {
            let (MapValue(key), slot) = entry?;
            sums.push((key, sum(&totals, slot)?));
        }
        // Slot 0 has no key: it collects those beyond the last slot.
        let rest = sum(&totals, 0)?;
        if rest != ListenerTotals::default() {
            sums.push((ListenerKey::default(), rest));
        }
        sums.sort_by_key(|(key, _)| *key);
        Ok(sums)
    }

    fn events(&mut self, visit: &mut dyn FnMut(Lifecycle)) -> Result<(), ReadError> {
        if let Some(logs) = &mut self.logs {
            logs.flush();
        }
        while let Some(entry) = self.events.next() {
            let Some((kind, _)) = split::<u64>(&entry) else {
                continue;
            };
            match kind {
                event::OPENED => {
                    if let Some(handshake) = Handshake::parse(&entry) {
                        visit(Lifecycle::Opened(Box::new(handshake)));
                    }
                }
                event::CLOSED => {
                    if let Some((socket, _)) = Socket::split(&entry) {
                        visit(Lifecycle::Closed(Box::new(socket)));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn stat(&mut self, stat: Stat) -> Result<u64, ReadError> {
        let map = self.ebpf.map(names::STATS).ok_or(ReadError::NoMap(names::STATS))?;
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        Ok(map.get(&(stat as u32), 0)?.iter().sum())
    }

    fn packet_nanoseconds(&mut self) -> Option<f64> {
        self.packet_runs().nanoseconds()
    }
}

impl Programs {
    /// Makes the links of all iterators that were loaded; one that cannot be made says why when it is used.
    pub(super) fn make_iterators(&mut self) {
        let iterators: Vec<&str> = HOOKS
            .iter()
            .filter(|hook| self.hooks.contains(&hook.name) && hook.name.starts_with("iter/"))
            .map(|hook| hook.program)
            .collect();
        for name in iterators {
            let _ = self.iterator(name);
        }
    }

    /// Made once: a link costs more than a reading of a few sockets.
    fn iterator(&mut self, name: &'static str) -> Result<Arc<Iterator>, ReadError> {
        if let Some(iterator) = self.iterators.get(name) {
            return Ok(Arc::clone(iterator));
        }
        let failed = |reason: String| ReadError::Iterator { program: name, reason };
        let program = self.ebpf.program_mut(name).ok_or_else(|| failed("not in the object".into()))?;
        let program: &mut Iter = program.try_into().map_err(|error| failed(format!("{error}")))?;
        let descriptor = program.fd().map_err(|error| failed(format!("{error}")))?.as_fd();
        let iterator = Arc::new(Iterator::new(descriptor).map_err(|error| failed(format!("{error}")))?);
        self.iterators.insert(name, Arc::clone(&iterator));
        Ok(iterator)
    }

    /// Open connections by inode number of their network namespace, where there are any; 0 for those whose listener is
    /// not told apart.
    fn connections_by_namespace(&mut self) -> Result<BTreeMap<u32, u64>, ReadError> {
        let mut connections = BTreeMap::new();
        for (key, totals) in self.listeners()? {
            let open = totals.connections();
            if open > 0 {
                *connections.entry(key.netns).or_default() += open;
            }
        }
        Ok(connections)
    }
}

fn open(program: &'static str, iterator: &Iterator) -> Result<File, ReadError> {
    iterator.open().map_err(|error| ReadError::Iterator { program, reason: error.to_string() })
}

/// Takes a record off the front of bytes; `None` where it is not whole.
type Split<T> = fn(&[u8]) -> Option<(T, &[u8])>;

/// Where there are connections. Those whose listener found no slot of its own may be anywhere.
fn wanted(connections: &BTreeMap<u32, u64>) -> Which {
    match connections.get(&0) {
        Some(_) => Which::All,
        None => Which::Named(connections.keys().copied().collect()),
    }
}

/// A pass that is read a page at a time. It holds one namespace open for as long as its sockets take to be read, which is the
/// exception to what is said in `namespaces`.
#[derive(Debug)]
pub(super) struct Pages {
    current: Records,
    /// Those to visit after it.
    namespaces: Vec<u32>,
}

/// The records of one pass.
#[derive(Debug)]
struct Records {
    file: File,
    buffer: Vec<u8>,
    /// Bytes of a record that is not whole yet.
    kept: usize,
}

impl Records {
    fn new(file: File) -> Self {
        // The kernel hands out at most 32 KiB a read and never splits a record across two.
        Self { file, buffer: vec![0u8; 32 << 10], kept: 0 }
    }

    /// Visits records until there are `number`, and what was read with them; whether there may be others behind them.
    fn page<T>(&mut self, number: usize, split: Split<T>, visit: &mut dyn FnMut(&T)) -> io::Result<bool> {
        let mut visited = 0;
        while visited < number {
            let read = match self.file.read(&mut self.buffer[self.kept..]) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                // A million sockets went by without output; the iterator goes on where it stopped.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let filled = self.kept + read;
            let mut rest = &self.buffer[..filled];
            while let Some((record, after)) = split(rest) {
                visit(&record);
                visited += 1;
                rest = after;
            }
            self.kept = rest.len();
            self.buffer.copy_within(filled - self.kept..filled, 0);
        }
        Ok(true)
    }
}

/// Reads all records of one pass.
fn records<T>(file: File, split: Split<T>, visit: &mut dyn FnMut(&T)) -> io::Result<()> {
    Records::new(file).page(usize::MAX, split, visit).map(drop)
}

/// One entry for each reason, however many namespaces it keeps the sweep out of.
fn degraded(unreached: &BTreeMap<u32, Unreached>, connections: &BTreeMap<u32, u64>) -> Vec<Degraded> {
    let mut reasons: BTreeMap<&Unreached, (Vec<String>, u64)> = BTreeMap::new();
    for (namespace, why) in unreached {
        // Where all are visited that can be found, nobody is known to have connections there.
        let Some(open) = connections.get(namespace) else {
            continue;
        };
        let (namespaces, lost) = reasons.entry(why).or_default();
        namespaces.push(namespace.to_string());
        *lost += open;
    }
    let entry = |(why, (namespaces, lost)): (&Unreached, (Vec<String>, u64))| {
        let (number, named) = (namespaces.len(), namespaces[..namespaces.len().min(NAMED)].join(", "));
        let more = if number > NAMED { ", …" } else { "" };
        let probe = "per-connection figures of other network namespaces".to_owned();
        let reason =
            format!("{why}; only totals of {lost} connections in {number} of them (net:[…] {named}{more})");
        Degraded { probe, reason }
    };
    reasons.into_iter().map(entry).collect()
}

/// Runs an iterator whose program writes nothing: one read runs it over everything, a few more where that is much.
fn run_through(mut file: File) -> io::Result<()> {
    let mut buffer = [0u8; 64];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A slot's totals over all CPUs.
fn sum(
    totals: &PerCpuArray<&MapData, MapValue<ListenerTotals>>,
    slot: u32,
) -> Result<ListenerTotals, ReadError> {
    let mut sum = ListenerTotals::default();
    for MapValue(part) in totals.get(&slot, 0)?.iter() {
        sum.add(part);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_with_what_it_costs() {
        let refused = || Unreached::Refused("Operation not permitted".into());
        let unreached = BTreeMap::from([
            (4_026_532_001, refused()),
            (4_026_532_002, Unreached::NotFound),
            (4_026_532_003, refused()),
            (4_026_532_004, refused()),
        ]);
        let connections =
            BTreeMap::from([(4_026_532_001, 5), (4_026_532_002, 1), (4_026_532_003, 7), (4_026_531_840, 9)]);
        let told = degraded(&unreached, &connections);
        assert_eq!(told.len(), 2);
        let refusal = told.iter().find(|entry| entry.reason.starts_with("setns")).expect("refused");
        assert!(
            refusal.reason.contains("12 connections in 2 of them (net:[…] 4026532001, 4026532003)"),
            "{refusal:?}"
        );
    }
}
