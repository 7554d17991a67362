//! Long messages at full speed, of payloads that look like frames: whatever becomes of their boundaries, no frame is counted
//! that was not sent.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::document::{Parse, Role};
use anyhow::{Context as _, anyhow, ensure};
use fastrand::Rng;

use crate::payload::{Fill, KINDS};
use crate::traffic::{self, Counts};
use crate::watch::Watch;
use crate::websocket;

/// Opened before the agent comes, of each kind; one more behind it.
const OLDER: usize = 3;
const LASTING: Duration = Duration::from_secs(3);
/// What is written at once, so that few packets begin or end where a frame does.
const PIECE: usize = 60_000;
/// Between pieces until the agent has attached.
const GENTLY: Duration = Duration::from_millis(10);
/// Frames that are made beforehand, as that takes longer than sending them, and a ping between so many.
const FRAMES: usize = 48;
const PING_EVERY: usize = 8;

/// What one client said.
struct Upload {
    server: String,
    client: String,
    name: &'static str,
    counts: Counts,
}

/// Frames as bytes, and what they are.
fn script(fill: Fill) -> anyhow::Result<(Vec<u8>, Counts)> {
    let (mut random, mut stream, mut counts) = (Rng::new(), Vec::new(), traffic::none());
    for number in 1..=FRAMES {
        let (first, len) =
            if number % PING_EVERY == 0 { (0x89, 4) } else { (0x82, random.usize(50_000..300_000)) };
        let payload = fill(&mut random, len);
        traffic::count(&mut counts, first, payload.len())?;
        stream.extend(websocket::frame(first, &payload, Some(random.u32(..).to_le_bytes())));
    }
    Ok((stream, counts))
}

pub(crate) fn full_speed_uploads_invent_nothing() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (attached, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut agent, uploads) = std::thread::scope(|scope| {
        let open = |kinds: usize| -> anyhow::Result<Vec<_>> {
            let pairs = (0..kinds).map(|_| websocket::pair(&listener)).collect::<anyhow::Result<Vec<_>>>()?;
            Ok(pairs
                .into_iter()
                .zip(KINDS)
                .map(|((mut server, mut client), (fill, name))| {
                    let (attached, over) = (&attached, &over);
                    scope.spawn(move || -> anyhow::Result<_> {
                        let ends = (server.local_addr()?.to_string(), client.local_addr()?.to_string());
                        let reading = std::thread::spawn(move || {
                            let mut bytes = vec![0; 256 << 10];
                            while server.read(&mut bytes)? > 0 {}
                            anyhow::Ok(server)
                        });
                        let (stream, once) = script(*fill)?;
                        let mut counts = traffic::none();
                        while !over.load(Ordering::Relaxed) {
                            for piece in stream.chunks(PIECE) {
                                client.write_all(piece)?;
                                if !attached.load(Ordering::Relaxed) {
                                    // An agent that attaches needs a processor too.
                                    std::thread::sleep(GENTLY);
                                }
                            }
                            traffic::add(&mut counts, &once);
                        }
                        // Both ends stay open until what they carried was told.
                        client.shutdown(std::net::Shutdown::Write)?;
                        let server = reading.join().map_err(|_| anyhow!("a reader panicked"))??;
                        let upload = Upload { server: ends.0, client: ends.1, name, counts };
                        Ok((upload, client, server))
                    })
                })
                .collect())
        };
        let run = || {
            let mut threads = Vec::new();
            for _ in 0..OLDER {
                threads.extend(open(KINDS.len())?);
            }
            let agent = Watch::attach(&[port], &[])?;
            attached.store(true, Ordering::Relaxed);
            threads.extend(open(KINDS.len())?);
            std::thread::sleep(LASTING);
            anyhow::Ok((agent, threads))
        };
        let done = run();
        over.store(true, Ordering::Relaxed);
        let (agent, threads) = done?;
        let uploads =
            threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?);
        anyhow::Ok((agent, uploads.collect::<anyhow::Result<Vec<_>>>()?))
    })?;
    agent.settle()?;
    let mut told = 0;
    for (Upload { server, client, name, counts }, ..) in &uploads {
        for (role, local, remote) in [(Role::Server, server, client), (Role::Client, client, server)] {
            // One that was older may not have been recognised at all.
            let Ok(connection) = agent.connection(local, remote) else { continue };
            told += 1;
            let (received, sent) = connection.received.zip(connection.sent).context("no counts")?;
            let (upload, answers) = if role == Role::Server { (received, sent) } else { (sent, received) };
            let seen = traffic::seen(&upload);
            for (what, truth) in counts {
                let counted = seen[what];
                ensure!(counted <= *truth, "{name}, {role:?}: {counted} {what} of {truth}: {connection:?}");
                let is_exact = connection.parse != Parse::Exact || counted == *truth;
                ensure!(is_exact, "{name}, {role:?}: exact, and {counted} {what} of {truth}");
            }
            ensure!(traffic::seen(&answers)["frames"] == 0, "{name}, {role:?}: {answers:?}");
        }
    }
    ensure!(told >= 2 * KINDS.len(), "only {told} ends of {} were told of", 2 * uploads.len());
    Ok(())
}
