//! Pings: that they come, what they carry, and what happens when nobody answers.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::{PATIENCE, TestServer, bounded};

#[test]
fn pings_come_numbered_and_answered_ones_keep_the_connection() {
    bounded(async {
        let server = TestServer::start(&["--ping-interval", "50ms", "--ping-payload", "16B"]);
        let mut client = server.connect("/").await;
        // Ten intervals are well over the two that may be missed.
        for number in 1..=10_u64 {
            let message = tokio::time::timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap();
            let Message::Ping(payload) = message else { panic!("{message:?}") };
            assert_eq!(payload.len(), 16);
            assert_eq!(payload[..8], number.to_be_bytes());
        }
    });
}

#[test]
fn unanswered_pings_end_the_connection() {
    bounded(async {
        let server = TestServer::start(&["--ping-interval", "100ms"]);
        let mut client = server.connect("/").await;
        // Not polled: the pings pile up unanswered.
        tokio::time::sleep(Duration::from_millis(800)).await;
        let mut close = None;
        while let Some(Ok(message)) = client.next().await {
            if let Message::Close(frame) = message {
                close = frame;
            }
        }
        assert_eq!(close.map(|frame| frame.code), Some(CloseCode::Error));
    });
}

#[test]
fn pings_are_spread_over_the_interval() {
    bounded(async {
        let server = TestServer::start(&["--ping-interval", "1s"]);
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(server.connect("/").await);
        }
        let start = Instant::now();
        let arrivals = clients.iter_mut().map(|client| async move {
            client.next().await.unwrap().unwrap();
            start.elapsed().as_millis() / 100
        });
        let mut tenths = [0; 100];
        for tenth in futures_util::future::join_all(arrivals).await {
            tenths[(tenth as usize).min(99)] += 1;
        }
        // 50 connections are half of the wheel's 100 slots: at most 10 or 11 fall into any tenth of the interval.
        assert!(tenths.iter().all(|count| *count <= 20), "{tenths:?}");
    });
}

#[test]
fn zero_means_no_pings() {
    bounded(async {
        let server = TestServer::start(&["--ping-interval", "0"]);
        let mut client = server.connect("/").await;
        assert!(tokio::time::timeout(Duration::from_millis(500), client.next()).await.is_err());
    });
}
