//! The thread that carries packets between the two ends of a wire, and is not to be trusted with them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::schedule::{self, Schedule};
use super::segment::{Ports, Segment};
use super::stream::{Disorder, Stream};
use super::tun::Tun;

/// Packets on their way at one time.
const BURST: usize = 64;
/// How long a packet may wait for another one to come by.
const IDLE: Duration = Duration::from_millis(20);
/// The largest packet a device of this MTU sends, and what it may be cut into.
pub(crate) const MTU: usize = 1500;

/// What a wire did to those that trusted it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) carried: u64,
    pub(crate) dropped: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) overlapped: u64,
    pub(crate) paused: u64,
    /// Segments that told their receiver to stop sending.
    pub(crate) zero_windows: u64,
    /// Streams whose sequence numbers began anew.
    pub(crate) wraps: u64,
    /// The worst disorder that a receiver saw.
    pub(crate) disorder: Disorder,
}

/// What the test and the thread share.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(crate) schedule: Schedule,
    pub(crate) tally: Tally,
    pub(crate) stop: bool,
    pub(crate) failure: Option<String>,
}

/// A packet that waits for later ones to overtake it.
struct Held {
    packet: Vec<u8>,
    behind: u32,
    until: Instant,
}

/// One direction.
struct Lane {
    random: Rng,
    waiting: VecDeque<Vec<u8>>,
    held: Vec<Held>,
    paused_until: Option<Instant>,
    streams: HashMap<Ports, Stream>,
}

/// Carries packets until told to stop.
pub(crate) fn forward(ends: &[Tun; 2], seed: u64, control: &Arc<Mutex<Control>>) {
    if let Err(error) = carry(ends, seed, control)
        && let Ok(mut control) = control.lock()
    {
        control.failure = Some(format!("{error:#}"));
    }
}

fn carry(ends: &[Tun; 2], seed: u64, control: &Mutex<Control>) -> anyhow::Result<()> {
    let mut lanes = [Lane::new(seed), Lane::new(!seed)];
    let mut buffer = [0; 2 * MTU];
    loop {
        let next = lanes.iter().filter_map(Lane::due).min().unwrap_or_else(|| Instant::now() + IDLE);
        let wait = next.saturating_duration_since(Instant::now()).min(IDLE);
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut watched = [0, 1].map(|end: usize| PollFd::new(&ends[end], PollFlags::IN));
        match poll(&mut watched, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for packets"),
        }
        let mut control = control.lock().map_err(|_| anyhow::anyhow!("the test panicked"))?;
        if control.stop {
            return Ok(());
        }
        for (from, lane) in lanes.iter_mut().enumerate() {
            for _ in 0..BURST {
                let Some(packet) = ends[from].receive(&mut buffer).context("taking a packet")? else {
                    break;
                };
                lane.take(packet, &mut control);
            }
            lane.pass_on(&ends[1 - from], &mut control)?;
        }
    }
}

impl Lane {
    fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            waiting: VecDeque::new(),
            held: Vec::new(),
            paused_until: None,
            streams: HashMap::new(),
        }
    }

    /// When something is to be done though no packet comes.
    fn due(&self) -> Option<Instant> {
        if let (Some(until), false) = (self.paused_until, self.waiting.is_empty()) {
            return Some(until);
        }
        self.held.iter().map(|held| held.until).min()
    }

    /// A packet sets out.
    fn take(&mut self, packet: &[u8], control: &mut Control) {
        let (schedule, tally) = (control.schedule, &mut control.tally);
        let segment = Segment::of(packet);
        let mut pieces = vec![packet.to_vec()];
        tally.zero_windows += u64::from(segment.is_some_and(|segment| segment.window == 0));
        if let Some(segment) = segment.filter(|segment| !segment.syn) {
            let fate = schedule.fate(&mut self.random);
            let payload = &packet[segment.headers..segment.end];
            let stream = self.streams.entry(segment.ports).or_default();
            if fate.overlapping
                && let Some(cuts) = schedule::overlapping(segment.len(), &mut self.random)
            {
                tally.overlapped += 1;
                let room = MTU - (segment.headers + cuts[0].len()).min(MTU);
                let before = stream.before(&segment);
                let before = &before[before.len().saturating_sub(room.min(self.random.usize(1..40)))..];
                pieces = vec![
                    segment.cut(packet, cuts[0].clone(), before),
                    segment.cut(packet, cuts[1].clone(), &[]),
                ];
            }
            if segment.len() > 0 {
                stream.sent(&segment, payload);
            }
            if let Some(pause) = fate.pause {
                tally.paused += 1;
                self.paused_until = Some(Instant::now() + pause);
            }
            if fate.dropped {
                tally.dropped += 1;
                return;
            }
            if fate.twice {
                tally.duplicated += 1;
                pieces.extend_from_within(..);
            }
            if let Some(behind) = fate.held_behind {
                tally.reordered += 1;
                let until = Instant::now() + schedule.at_most;
                // Of several pieces only the first: the others overtake it.
                self.held.push(Held { packet: pieces.remove(0), behind, until });
            }
        }
        self.waiting.extend(pieces);
    }

    /// What is due arrives.
    fn pass_on(&mut self, to: &Tun, control: &mut Control) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.paused_until.is_some() {
            return Ok(());
        }
        while let Some(packet) = self.waiting.pop_front() {
            self.arrive(to, &packet, control)?;
            for held in &mut self.held {
                held.behind = held.behind.saturating_sub(1);
            }
            self.release(to, |held| held.behind == 0, control)?;
        }
        self.release(to, |held| held.until <= now, control)
    }

    fn release(
        &mut self,
        to: &Tun,
        due: impl Fn(&Held) -> bool,
        control: &mut Control,
    ) -> anyhow::Result<()> {
        while let Some(index) = self.held.iter().position(&due) {
            let held = self.held.remove(index);
            self.arrive(to, &held.packet, control)?;
        }
        Ok(())
    }

    fn arrive(&mut self, to: &Tun, packet: &[u8], control: &mut Control) -> anyhow::Result<()> {
        let tally = &mut control.tally;
        if let Some(segment) = Segment::of(packet).filter(|segment| !segment.syn && segment.len() > 0) {
            let stream = self.streams.entry(segment.ports).or_default();
            let wraps = stream.wraps;
            let disorder = stream.arrived(&segment);
            tally.wraps += stream.wraps - wraps;
            tally.disorder = tally.disorder.max(disorder);
        }
        tally.carried += 1;
        to.send(packet).context("delivering a packet")
    }
}

impl Disorder {
    fn max(self, other: Disorder) -> Disorder {
        Disorder { holes: self.holes.max(other.holes), bytes: self.bytes.max(other.bytes) }
    }
}
