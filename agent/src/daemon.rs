//! The agent at work: an engine thread that turns what the kernel gathers into events.

mod announced;
mod connection_events;
mod engine;
mod handshakes;
mod limit;
mod reported;
mod settings;
mod sweep;
mod tasks;
mod trends;
mod usage;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;

use crate::document::{Body, Envelope, EventWriter, Snapshot, Stopped};
use crate::host::{self, Host, ProcHost};
use crate::kernel::{self, LoadError, Probes, Programs};
use crate::model::Clock;

use limit::{Limit, Verdict};

pub use engine::Engine;
pub use settings::{ConfigError, Output, Sample, Settings};

/// How often the ring buffer is drained. At this pace its 4 MiB hold some 28,000 opens or 50,000 closes a
/// second.
const DRAIN: Duration = Duration::from_millis(100);
/// Events that may wait for a slow reader; beyond, the newest are dropped and counted.
const QUEUE: usize = 65_536;

/// Connections that readers who came late are told of at a time: few beside [`QUEUE`], so that events find room all the same.
const PAGE: usize = 4_096;

/// Where a daemon's event stream is expected when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/headroom/agent.sock";

/// A running agent. Dropping it stops the engine and detaches the programs.
#[derive(Debug)]
pub struct Running {
    control: Arc<Control>,
    engine: Option<JoinHandle<()>>,
}

/// The event stream. Boxed: the queue's places are laid out ahead, and an event is over half a kilobyte.
pub type Events = Receiver<Box<Envelope>>;

/// What may be asked of a running engine from another thread.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    resend: AtomicBool,
    lines_lost: AtomicU64,
    /// Lines for readers that came late which outputs have not acknowledged.
    late: AtomicUsize,
}

impl Control {
    /// Ends the engine; its last event is `agent_stopped`.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Adds to the lines that outputs could not take.
    pub fn count_lost_lines(&self, lines: u64) {
        self.lines_lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// That many lines for readers that came late have been handed on; the next page follows when all have.
    pub fn acknowledge(&self, lines: usize) {
        self.late.fetch_sub(lines, Ordering::Relaxed);
    }

    /// Tells readers that came late of the host and of every connection.
    pub fn resend(&self) {
        self.resend.store(true, Ordering::Relaxed);
    }
}

impl Running {
    /// A handle for other threads.
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(engine) = self.engine.take() {
            // A panic in the engine has been reported by then; there is nothing to add.
            let _ = engine.join();
        }
    }
}

/// Loads and attaches everything in the calling thread, whose capabilities count, and starts the engine. The receiver is
/// the event stream; it is disconnected after `agent_stopped`.
///
/// Capabilities belong to threads: afterwards the engine's thread keeps what reading takes, the calling thread and those it starts
/// from then on what writing to `settings.output` takes, which is nothing as a rule.
pub fn start(settings: &Settings) -> Result<(Running, Events), LoadError> {
    let mut engine = attach(settings)?;
    let (sender, events) = sync_channel(QUEUE);
    let control = Arc::new(Control::default());
    let seen = Arc::clone(&control);
    let limit =
        Limit::new(settings.sample_connections.map(|Sample(one_of)| one_of), settings.max_connection_events);
    let interval = settings.interval;
    let duration = settings.duration;
    let (ready, kept) = sync_channel(1);
    let body = move || {
        let outcome = engine.probes_mut().keep_privileges_for_reading();
        let ended = outcome.is_err();
        if ready.send(outcome).is_err() || ended {
            return;
        }
        let mut outbox = Outbox::new(sender, limit);
        drive(&mut engine, &mut outbox, &seen, interval, duration);
    };
    let engine = thread::Builder::new()
        .name("engine".into())
        .spawn(body)
        .map_err(|error| LoadError::Thread { name: "engine", error })?;
    let running = Running { control, engine: Some(engine) };
    kept.recv().map_err(|_| LoadError::KeptPrivilege("the engine's thread has ended".into()))??;
    kernel::keep_for_output(settings.output.path()).map_err(LoadError::KeptPrivilege)?;
    Ok((running, events))
}

/// Attaches, lets `settle` pass, and describes everything once.
pub fn snapshot(
    settings: &Settings,
    settle: Duration,
    attached: impl FnOnce(&[&'static str]),
) -> Result<Snapshot, LoadError> {
    let mut engine = attach(settings)?;
    engine.probes_mut().keep_privileges_for_reading()?;
    attached(engine.hooks());
    // Ticks meanwhile, as rates and slopes need readings at different moments.
    let start = now().monotonic_ns;
    let end = start + settle.as_nanos() as u64;
    let mut next_tick = start;
    loop {
        let clock = now();
        if clock.monotonic_ns >= next_tick {
            engine.tick(&clock, &mut |_| true);
            next_tick += settings.interval.as_nanos() as u64;
        }
        engine.drain(&clock, &mut |_| true);
        let left = end.saturating_sub(now().monotonic_ns);
        if left == 0 {
            break;
        }
        thread::sleep(Duration::from_nanos(left).min(DRAIN));
    }
    Ok(engine.snapshot(&now()))
}

fn attach(settings: &Settings) -> Result<Engine<Programs, ProcHost>, LoadError> {
    let programs = Programs::load(&settings.load_options())?;
    let mut document = host::describe();
    document.hooks = programs.hooks.iter().map(|hook| (*hook).to_owned()).collect();
    document.degraded.clone_from(&programs.degraded);
    let hooks = programs.hooks.clone();
    let host = ProcHost::new(settings.nic_speeds.clone(), settings.nic_packets.clone());
    let mut engine = Engine::new(programs, host, document, hooks, settings);
    // The packet programs are attached by now, so no connection falls between what they see and what this finds.
    engine.find_candidates();
    Ok(engine)
}

/// The two clocks, read together.
pub fn now() -> Clock {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let monotonic_ns = monotonic.tv_sec as u64 * 1_000_000_000 + monotonic.tv_nsec as u64;
    Clock { wall: Timestamp::now(), monotonic_ns }
}

/// The engine's side of the channel.
struct Outbox {
    sender: SyncSender<Box<Envelope>>,
    writer: EventWriter,
    dropped: u64,
    limit: Limit,
    /// Lines for readers that came late, which are not dropped: at most a page.
    late: VecDeque<Box<Envelope>>,
}

impl Outbox {
    fn new(sender: SyncSender<Box<Envelope>>, limit: Limit) -> Self {
        Self { sender, writer: EventWriter::default(), dropped: 0, limit, late: VecDeque::new() }
    }

    /// Lets time pass for the rate of events, and writes what had to wait for it.
    fn advance(&mut self, clock: &Clock) {
        for body in self.limit.advance(clock.monotonic_ns) {
            let subject = limit::subject(&body);
            if !self.write(clock.wall, body) {
                self.limit.owe(subject);
            }
        }
    }

    fn send_late(&mut self, wall: Timestamp, body: Body, control: &Control) {
        if !self.limit.is_told(&body) {
            return;
        }
        control.late.fetch_add(1, Ordering::Relaxed);
        self.late.push_back(Box::new(Envelope::late(wall, body)));
    }

    /// Hands on what finds room.
    fn flush_late(&mut self) {
        while let Some(line) = self.late.pop_front() {
            if let Err(TrySendError::Full(line)) = self.sender.try_send(line) {
                self.late.push_front(line);
                return;
            }
        }
    }

    /// Whether the event found room. Numbers are given out before, so a dropped event leaves a hole in `seq`.
    fn send(&mut self, wall: Timestamp, body: Body) -> bool {
        match self.limit.judge(&body) {
            Verdict::Write => {}
            Verdict::LeaveOut => return true,
            Verdict::Later => return false,
        }
        let subject = limit::subject(&body);
        let sent = self.write(wall, body);
        self.limit.done(subject, sent);
        sent
    }

    fn write(&mut self, wall: Timestamp, body: Body) -> bool {
        let sent = self.sender.try_send(Box::new(self.writer.envelope(wall, body))).is_ok();
        self.dropped += u64::from(!sent);
        sent
    }
}

impl Outbox {
    /// The stream's last word waits for room. Whoever drops the receiver ends the wait.
    fn send_last(&mut self, wall: Timestamp, body: Body) {
        let _ = self.sender.send(Box::new(self.writer.envelope(wall, body)));
    }
}

fn drive<P: Probes, H: Host>(
    engine: &mut Engine<P, H>,
    outbox: &mut Outbox,
    control: &Control,
    interval: Duration,
    duration: Option<Duration>,
) {
    let start = now();
    outbox.send(start.wall, engine.started());
    let mut next_tick = start.monotonic_ns;
    let end = duration.map(|duration| start.monotonic_ns + duration.as_nanos() as u64);
    let reason = loop {
        let clock = now();
        if control.stop.load(Ordering::Relaxed) {
            break "signal";
        }
        outbox.advance(&clock);
        // After the life-cycle events: a connection that is told of as open must not have been told of as closed.
        engine.drain(&clock, &mut |body| outbox.send(clock.wall, body));
        catch_up(engine, outbox, control, &clock);
        if end.is_some_and(|end| clock.monotonic_ns >= end) {
            break "duration";
        }
        if clock.monotonic_ns >= next_tick {
            engine.note_losses(
                outbox.dropped,
                control.lines_lost.load(Ordering::Relaxed),
                outbox.limit.left_out(),
            );
            engine.tick(&clock, &mut |body| outbox.send(clock.wall, body));
            // A tick that comes late does not make the next ones come in a burst.
            next_tick = (next_tick + interval.as_nanos() as u64).max(clock.monotonic_ns);
        }
        let until = next_tick.min(end.unwrap_or(u64::MAX)).saturating_sub(now().monotonic_ns);
        thread::sleep(Duration::from_nanos(until).min(DRAIN));
    };
    // Programs detach one after the other: without this, some would count what others do not see any more.
    let clock = now();
    engine.finish(&clock, &mut |body| outbox.send(clock.wall, body));
    outbox.send_last(Timestamp::now(), Body::AgentStopped(Stopped { reason: reason.into() }));
}

/// The next page for readers that came late, once the last one is out.
fn catch_up<P: Probes, H: Host>(
    engine: &mut Engine<P, H>,
    outbox: &mut Outbox,
    control: &Control,
    clock: &Clock,
) {
    outbox.flush_late();
    if control.late.load(Ordering::Relaxed) > 0 {
        return;
    }
    // Those who come while others are told have a pass of their own: else no pass might ever end.
    if !engine.is_catching_up() && control.resend.swap(false, Ordering::Relaxed) {
        outbox.send_late(clock.wall, engine.started(), control);
        engine.begin_catch_up();
    }
    if engine.is_catching_up() {
        engine.catch_up(clock, PAGE, &mut |body| outbox.send_late(clock.wall, body, control));
    }
    outbox.flush_late();
}

#[cfg(test)]
mod tests;
