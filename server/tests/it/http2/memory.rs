//! What an idle stream costs.

use std::time::Duration;

use futures_util::future::join_all;

use super::client::Peer;
use crate::raw::{BINARY, FIN};
use crate::support::{Process, TestServer, bounded};

const STREAMS: usize = 100;
const CONNECTIONS: usize = 60;

fn resident(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Opens connections with streams on each of which 8 KiB have passed: all at once on each connection, opening and message.
async fn crowd(server: &TestServer, connections: usize) -> Vec<(Peer, Vec<super::client::Stream>)> {
    let mut crowd = Vec::new();
    for _ in 0..connections {
        let peer = Peer::connect(server.address()).await;
        let mut streams = join_all((0..STREAMS).map(|_| peer.open("/"))).await;
        streams.iter_mut().for_each(|stream| stream.frame(BINARY, &[7; 8192]));
        for stream in &mut streams {
            assert_eq!(stream.next().await.unwrap(), (FIN | BINARY, vec![7; 8192]));
        }
        crowd.push((peer, streams));
    }
    crowd
}

#[test]
fn an_idle_stream_costs_little_also_after_it_was_busy() {
    bounded(async {
        let server = TestServer::start(&["--ping-interval", "0s"]);
        drop(crowd(&server, 3).await);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = resident(&server.process);
        let crowd = crowd(&server, CONNECTIONS).await;
        // Parked, and what they needed given back.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let each = (resident(&server.process) - before) / (CONNECTIONS * STREAMS);
        eprintln!("EACH {each}");
        eprintln!("EACH {each}");
        assert!(each <= 1_000, "{each} bytes");
        // A page a stream would be 4,096.
        assert!(each >= 300, "{each} bytes: nothing was measured");
        drop(crowd);
    });
}
