//! The event stream as a consumer sees it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent::document::Body;
use anyhow::{Context as _, bail, ensure};

use crate::agent_process::{Run, command};
use crate::pace::patient;
use crate::process::{SOON, until};

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
