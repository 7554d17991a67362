//! Reading what the programs gather: sweeps, totals, life-cycle events, statistics.

use std::fs::File;
use std::io::{self, Read as _};

use agent_ebpf::abi::{ListenerKey, ListenerTotals, Refusal, Stat, event, names};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use aya::programs::Iter;
use thiserror::Error;

use super::load::Programs;
use super::record::{Handshake, MapValue, SOCKET_BYTES, Socket, split};

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

/// What the agent asks of the kernel side, so that the engine can be driven without one.
pub trait Probes {
    /// Visits every tracked socket of the caller's network namespace.
    fn sweep(&mut self, visit: &mut dyn FnMut(&Socket)) -> Result<(), ReadError>;
    /// Notes in each tracked socket which process holds it.
    fn find_owners(&mut self) -> Result<(), ReadError>;
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
    fn sweep(&mut self, visit: &mut dyn FnMut(&Socket)) -> Result<(), ReadError> {
        let mut file = self.iterator(names::SOCKETS)?;
        // The kernel hands out at most 32 KiB a read and never splits a record across two.
        let mut buffer = vec![0u8; 32 << 10];
        let mut kept = 0;
        loop {
            let read = match file.read(&mut buffer[kept..]) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                // A million sockets went by without output; the iterator goes on where it stopped.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let filled = kept + read;
            let mut rest = &buffer[..filled];
            while let Some((socket, after)) = Socket::split(rest) {
                visit(&socket);
                rest = after;
            }
            kept = rest.len();
            debug_assert!(kept < SOCKET_BYTES);
            buffer.copy_within(filled - kept..filled, 0);
        }
    }

    fn find_owners(&mut self) -> Result<(), ReadError> {
        run_through(self.iterator(names::OWNERS)?)
    }

    fn find_candidates(&mut self) -> Result<(), ReadError> {
        run_through(self.iterator(names::CANDIDATES)?)
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
    fn iterator(&mut self, name: &'static str) -> Result<File, ReadError> {
        let failed = |reason: String| ReadError::Iterator { program: name, reason };
        let program = self.ebpf.program_mut(name).ok_or_else(|| failed("not in the object".into()))?;
        let program: &mut Iter = program.try_into().map_err(|error| failed(format!("{error}")))?;
        let link = program.attach().map_err(|error| failed(format!("{error}")))?;
        let link = program.take_link(link).map_err(|error| failed(format!("{error}")))?;
        link.into_file().map_err(|error| failed(format!("{error}")))
    }
}

/// Runs an iterator whose program writes nothing: one read runs it over everything, a few more where that is much.
fn run_through(mut file: File) -> Result<(), ReadError> {
    let mut buffer = [0u8; 64];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
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
