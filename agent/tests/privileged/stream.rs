//! The event stream as a consumer sees it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent::document::{Body, Tick};
use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;

use crate::agent_process::{Run, command};
use crate::pace::patient;
use crate::process::{SOON, until};
use crate::websocket;

pub(crate) fn the_stream_is_whole() -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut run = Run::attach(&["--interval", "500ms", "--duration", "3s"])?;
    let (mut ticks, mut last) = (0, None);
    // `next` refuses a line that is no event and a hole in the numbering.
    while let Some(event) = run.next(SOON)? {
        ensure!(last.is_none(), "{} follows agent_stopped", event.event);
        match event.body {
            Body::Tick(tick) => {
                ticks += 1;
                ensure!(!tick.ceilings.is_empty(), "a tick without ceilings");
            }
            Body::AgentStopped(stopped) => last = Some(stopped.reason),
            Body::AgentStarted(_) => bail!("a second agent_started"),
            _ => {}
        }
    }
    ensure!(last.as_deref() == Some("duration"), "the stream ends with {last:?}");
    ensure!((4..=7).contains(&ticks), "{ticks} ticks in 3 s at 500 ms");
    ensure!(begun.elapsed() < patient(Duration::from_secs(10)), "it took {:?}", begun.elapsed());
    let ended = run.process.finish(SOON)?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr.join(" "));
    Ok(())
}

/// `headroom-agent run | head -1`.
pub(crate) fn a_closed_pipe_is_no_error() -> anyhow::Result<()> {
    // Says whether this host can be measured at all.
    drop(Run::attach(&["--duration", "1s"])?);
    let mut child = command(&["run", "--interval", "200ms", "--duration", "60s"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line);
    let mut status = None;
    let ended = until("ending behind a closed pipe", SOON, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    });
    let _ = child.kill();
    let output = child.wait_with_output()?;
    ended?;
    read?;
    ensure!(line.contains("agent_started"), "the first line is {line}");
    ensure!(status.is_some_and(|status| status.success()), "it ended with {status:?}");
    ensure!(output.stderr.is_empty(), "it complains: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What a reader believes to be open is open: where the ring buffer overflowed, sweeps find what has ended.
pub(crate) fn every_opening_has_an_end_though_events_are_lost() -> anyhow::Result<()> {
    /// More openings and closings, each of them twice, than the ring buffer has room for.
    const BRIEF: usize = 2_500;
    const LASTING: usize = 50;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let mut run = Run::attach(&["--port", &port, "--interval", "200ms", "--sweep-budget", "1"])?;
    let mut pairs = (0..LASTING).map(|_| websocket::pair(&listener)).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut open, mut vanished, mut lost) = (BTreeSet::new(), 0, 0);
    let mut read = |run: &mut Run, done: &dyn Fn(&Tick, &BTreeSet<String>) -> bool, what: &str| {
        let deadline = Instant::now() + patient(SOON);
        loop {
            match run.next(patient(SOON))?.context("the agent ended")?.body {
                Body::ConnectionOpened(one) => drop(open.insert(one.id)),
                Body::ConnectionClosed(one) => drop(open.remove(&one.id)),
                Body::ConnectionVanished(one) => {
                    ensure!(open.remove(&one.id), "{} vanished without having been open", one.id);
                    vanished += 1;
                }
                Body::Tick(tick) => {
                    lost = tick.agent.events_dropped;
                    if done(&tick, &open) {
                        return Ok(());
                    }
                    let left = (open.len(), tick.connections, lost, tick.agent.sweep_seconds);
                    let what = format!("{what}: open, by the totals, events lost, sweep: {left:?}");
                    ensure!(Instant::now() < deadline, "{what}; {:?}", tick.degraded);
                }
                _ => {}
            }
        }
    };
    read(&mut run, &|_, open| open.len() == 2 * LASTING, "opening")?;
    run.process.signal(Signal::STOP)?;
    for _ in 0..BRIEF {
        websocket::pair(&listener)?;
    }
    let kept = pairs.split_off(LASTING / 2);
    drop(pairs);
    run.process.signal(Signal::CONT)?;
    let done = |tick: &Tick, open: &BTreeSet<String>| {
        tick.connections == 2 * kept.len() as u64 && open.len() == 2 * kept.len()
    };
    read(&mut run, &done, "finding the ends")?;
    drop(kept);
    read(&mut run, &|_, open| open.is_empty(), "closing")?;
    ensure!(lost > 0 && vanished >= LASTING, "{lost} events were lost, {vanished} connections vanished");
    Ok(())
}
