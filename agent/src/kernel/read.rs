//! Reading what the programs gather: sweeps, totals, life-cycle events, statistics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_ebpf::abi::{ListenerKey, ListenerTotals, Refusal, Stat, Task, event, names};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::Iter;
use aya_log::EbpfLogger;
use thiserror::Error;

use super::iterator::Iterator;
use super::load::{HOOKS, Programs};
use super::namespaces::{Unreached, Which};
use super::pages::{Pages, Records, records};
use super::record::{CandidateSocket, Handshake, MapValue, Socket, SweepRecord, split};
use super::slots::Plan;
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

/// What comes out of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation<'a> {
    /// A tracked socket.
    Socket(&'a Socket),
    /// A connection that is not judged yet.
    Candidate(&'a CandidateSocket),
    /// What happened meanwhile. A sweep over a million sockets takes longer than the ring buffer has room for.
    Lifecycle(Lifecycle),
}

/// What a sweep has to say beside the sockets it visited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// CPU time it took on threads other than the caller's.
    pub cpu: Duration,
    /// Where it could not go, and why.
    pub degraded: Vec<Degraded>,
    /// Network namespaces of open connections that it could not go to.
    pub unvisited: BTreeSet<u32>,
}

/// What the agent asks of the kernel side, so that the engine can be driven without one.
pub trait Probes {
    /// Visits every tracked socket, and those not judged yet that may be WebSockets, in whichever network namespace they are. Drains
    /// the ring buffer at its end and as often as needed before.
    fn sweep(&mut self, visit: &mut dyn FnMut(Observation<'_>)) -> Result<Swept, ReadError>;
    /// Begins a pass over the same sockets that is read a page at a time.
    fn begin_pages(&mut self) -> Result<(), ReadError>;
    /// Visits about `number` more sockets of that pass; whether there may be others behind them.
    fn next_page(&mut self, number: usize, visit: &mut dyn FnMut(Observation<'_>))
    -> Result<bool, ReadError>;
    /// Notes in each tracked socket which process holds it. Drains the ring buffer meanwhile.
    fn find_owners(&mut self, visit: &mut dyn FnMut(Lifecycle)) -> Result<(), ReadError>;
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
    /// Has the programs stop working, all at one moment. What they have counted until then stays readable.
    fn switch_off(&mut self);
    /// Mean run time of the packet programs in nanoseconds, where the kernel keeps run-time statistics.
    fn packet_nanoseconds(&mut self) -> Option<f64>;
}

impl Probes for Programs {
    fn sweep(&mut self, visit: &mut dyn FnMut(Observation<'_>)) -> Result<Swept, ReadError> {
        let iterator = self.iterator(names::SOCKETS)?;
        let connections = self.connections_by_namespace()?;
        let which = self.namespaces_to_sweep(&connections)?;
        let Self { events, logs, namespaces, .. } = self;
        let mut read = |file| {
            records(file, SweepRecord::split, &mut |record| match record {
                Some(record) => visit(record.observation()),
                // Only where no record waits: the close of a socket must not be taken before a record of it.
                None => drain(events, logs, &mut |event| visit(Observation::Lifecycle(event))),
            })
        };
        read(open(names::SOCKETS, &iterator)?)?;
        let pass = namespaces.for_each(&which, move || iterator.open(), read);
        // A namespace that is gone has taken its connections along.
        namespaces.with_candidates.retain(|one| pass.unreached.get(one) != Some(&Unreached::NotFound));
        let unvisited = pass.unreached.keys().copied().filter(|one| connections.contains_key(one)).collect();
        Ok(Swept { cpu: pass.cpu, degraded: degraded(&pass.unreached, &connections), unvisited })
    }

    fn begin_pages(&mut self) -> Result<(), ReadError> {
        let file = open(names::SOCKETS, &*self.iterator(names::SOCKETS)?)?;
        let connections = self.connections_by_namespace()?;
        let which = self.namespaces_to_sweep(&connections)?;
        let namespaces = self.namespaces.list(&which).into_iter().collect();
        self.pages = Some(Pages { current: Records::new(file), namespaces });
        Ok(())
    }

    fn next_page(
        &mut self,
        number: usize,
        visit: &mut dyn FnMut(Observation<'_>),
    ) -> Result<bool, ReadError> {
        let Some(mut pages) = self.pages.take() else {
            return Ok(false);
        };
        let mut visited = 0;
        loop {
            let left = number.saturating_sub(visited);
            let more =
                pages.current.page(left, SweepRecord::split, &mut |record: Option<&SweepRecord>| {
                    if let Some(record) = record {
                        visited += 1;
                        visit(record.observation());
                    }
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

    fn find_owners(&mut self, visit: &mut dyn FnMut(Lifecycle)) -> Result<(), ReadError> {
        let iterator = self.iterator(names::OWNERS)?;
        let Self { events, logs, .. } = self;
        // The program writes nothing, so all that there is to do is what is to be done between reads.
        let mut step = |_: Option<&u64>| drain(events, logs, visit);
        Ok(records(open(names::OWNERS, &iterator)?, split, &mut step)?)
    }

    fn tasks(&mut self, visit: &mut dyn FnMut(&Task)) -> Result<(), ReadError> {
        let iterator = self.iterator(names::TASKS)?;
        let mut step = |task: Option<&Task>| task.into_iter().for_each(&mut *visit);
        Ok(records(open(names::TASKS, &iterator)?, split, &mut step)?)
    }

    fn find_candidates(&mut self) -> Result<(), ReadError> {
        let iterator = self.iterator(names::CANDIDATES)?;
        let mut with_candidates = BTreeSet::new();
        let mut read = |file| {
            records(file, split::<u64>, &mut |namespace| {
                with_candidates.extend(namespace.and_then(|namespace| u32::try_from(*namespace).ok()));
            })
        };
        read(open(names::CANDIDATES, &iterator)?)?;
        let pass = self.namespaces.for_each(&Which::All, move || iterator.open(), read);
        self.namespaces.with_candidates = with_candidates;
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
        let mut listeners = Vec::new();
        for entry in slots.iter() {
            let (MapValue(key), slot) = entry?;
            listeners.push((key, slot, sum(&totals, slot)?));
        }
        let plan = self.slots.plan(Instant::now(), &listeners, |slot| sum(&totals, slot).ok());
        let mut sums: Vec<_> = listeners.into_iter().map(|(key, _, totals)| (key, totals)).collect();
        // Slot 0 has no key: it collects those beyond the last slot.
        let rest = sum(&totals, 0)?;
        if rest != ListenerTotals::default() {
            sums.push((ListenerKey::default(), rest));
        }
        sums.sort_by_key(|(key, _)| *key);
        if plan != Plan::default() {
            self.recycle(&plan)?;
        }
        Ok(sums)
    }

    fn events(&mut self, visit: &mut dyn FnMut(Lifecycle)) -> Result<(), ReadError> {
        drain(&mut self.events, &mut self.logs, visit);
        Ok(())
    }

    fn stat(&mut self, stat: Stat) -> Result<u64, ReadError> {
        let map = self.ebpf.map(names::STATS).ok_or(ReadError::NoMap(names::STATS))?;
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        Ok(map.get(&(stat as u32), 0)?.iter().sum())
    }

    fn switch_off(&mut self) {
        // Nothing is lost where that fails: the programs are about to be detached.
        let _ = self.switch(false);
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

    /// Network namespaces in which a sweep has something to find.
    fn namespaces_to_sweep(&mut self, connections: &BTreeMap<u32, u64>) -> Result<Which, ReadError> {
        // Those whose listener found no slot of its own may be anywhere.
        if connections.contains_key(&0) {
            return Ok(Which::All);
        }
        let mut wanted: BTreeSet<u32> = connections.keys().copied().collect();
        if !self.namespaces.with_candidates.is_empty() {
            let ports = self.ebpf.map(names::PORTS).ok_or(ReadError::NoMap(names::PORTS))?;
            let named = HashMap::<_, u16, u8>::try_from(ports)?.keys().next().is_some();
            // Elsewhere nothing speaks for a candidate's being a WebSocket.
            let known: BTreeSet<u32> = self.listeners()?.iter().map(|(key, _)| key.netns).collect();
            let with_candidates = self.namespaces.with_candidates.iter();
            wanted.extend(with_candidates.filter(|namespace| named || known.contains(namespace)));
        }
        Ok(Which::Named(wanted))
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

/// Takes what is in the ring buffer.
fn drain(
    events: &mut RingBuf<MapData>,
    logs: &mut Option<EbpfLogger<&'static dyn log::Log>>,
    visit: &mut dyn FnMut(Lifecycle),
) {
    if let Some(logs) = logs {
        logs.flush();
    }
    while let Some(entry) = events.next() {
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
}

fn open(program: &'static str, iterator: &Iterator) -> Result<File, ReadError> {
    iterator.open().map_err(|error| ReadError::Iterator { program, reason: error.to_string() })
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
