//! The adapter against an independent implementation of deflate: any messages in any frames cut anywhere, both roles.

mod endpoint;
mod peer;

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;
use endpoint::Endpoint;
use peer::{Peer, Rng};

fn other(role: Role) -> Role {
    if role == Role::Server { Role::Client } else { Role::Server }
}

fn directions() -> impl Iterator<Item = Direction> {
    [9, 10, 12, 15].into_iter().flat_map(|bits| [false, true].map(|takeover| Direction { bits, takeover }))
}

fn settings(rng: &mut Rng) -> Settings {
    Settings {
        mem_level: 1 + rng.below(9) as u8,
        level: rng.below(10) as u8,
        min_size: [0, 1, 100][rng.below(3)],
        content: if rng.chance(5) { Content::Text } else { Content::All },
        ..Settings::default()
    }
}

/// What a peer sends, whatever its frames and wherever they are cut, reaches the engine whole and in order. The peer's
/// window is of 15 bits, as miniz_oxide has no other.
#[test]
fn every_message_comes_in() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let role = [Role::Server, Role::Client][rng.below(2)];
        let direction = Direction { bits: 15, takeover: rng.chance(2) };
        let agreed = Agreed::new(direction, direction);
        let settings = settings(&mut rng);
        let mut peer = Peer::new(other(role), agreed);
        let mut endpoint = Endpoint::new(role, agreed.into(), &settings, seed);
        for _ in 0..6 {
            let messages: Vec<Message> = (0..rng.below(6)).map(|_| rng.message()).collect();
            let (mut wire, mut pongs) = (Vec::new(), 0);
            messages.iter().for_each(|message| peer.say(&mut rng, message, &mut wire, &mut pongs));
            endpoint.stream.incoming = wire;
            endpoint.stream.at = 0;
            if rng.chance(4) {
                // Some of it was read by somebody else, like what comes with the handshake.
                let fed = rng.below(endpoint.stream.incoming.len() + 1);
                let rest = endpoint.stream.incoming.split_off(fed);
                let fed = std::mem::replace(&mut endpoint.stream.incoming, rest);
                endpoint.stream.adapter.feed(fed);
            }
            let mut heard = Vec::new();
            for _ in 0..messages.len() + pongs {
                heard.push(endpoint.read().unwrap());
                endpoint.flush();
            }
            assert!(endpoint.read().is_err(), "nothing more");
            heard.retain(|message| *message != Message::Pong("between".into()));
            assert_eq!(heard, messages, "seed {seed}");
            if rng.chance(2) {
                endpoint.renew(role, &settings);
            }
        }
    }
}

/// What the engine writes reaches the peer whole and in order, whatever the stream takes at once.
#[test]
fn every_message_goes_out() {
    let mut seed = 0;
    for direction in directions() {
        for role in [Role::Server, Role::Client] {
            for _ in 0..12 {
                seed += 1;
                let mut rng = Rng::new(seed);
                let agreed = Agreed::new(direction, direction);
                let settings = settings(&mut rng);
                let mut peer = Peer::new(other(role), agreed);
                peer.ours = direction;
                let mut endpoint = Endpoint::new(role, agreed.into(), &settings, seed);
                for _ in 0..4 {
                    let messages: Vec<Message> = (0..1 + rng.below(6)).map(|_| rng.message()).collect();
                    for message in &messages {
                        endpoint.write(message.clone());
                        if rng.chance(3) || !message.is_text() {
                            endpoint.flush();
                        }
                    }
                    endpoint.flush();
                    let (heard, compressed) = peer.hear(&std::mem::take(&mut endpoint.stream.outgoing));
                    assert_eq!(heard, messages, "seed {seed}");
                    let large = |message: &&Message| message.is_text() && message.len() > 2_000;
                    let least = messages.iter().filter(large).count();
                    assert!(!direction.takeover || compressed >= least, "nothing is compressed");
                    if rng.chance(3) {
                        endpoint.renew(role, &settings);
                    }
                }
            }
        }
    }
}

/// Two of ours, so that windows of every size are decompressed with no more than that.
#[test]
fn no_reference_goes_beyond_the_window() {
    let mut seed = 0;
    for direction in directions() {
        seed += 1;
        let agreed = Agreed::new(direction, direction);
        let settings = Settings { min_size: 0, mem_level: 9, level: 9, ..Settings::default() };
        let mut client = Endpoint::new(Role::Client, agreed.into(), &settings, seed);
        let mut server = Endpoint::new(Role::Server, agreed.into(), &settings, seed);
        let mut rng = Rng::new(seed);
        for _ in 0..40 {
            let message = Message::binary(rng.bytes(9_000));
            client.write(message.clone());
            client.flush();
            server.stream.incoming = std::mem::take(&mut client.stream.outgoing);
            server.stream.at = 0;
            assert_eq!(server.read().unwrap(), message);
            if rng.chance(3) {
                server.renew(Role::Server, &settings);
            }
        }
    }
}

/// `frames` to a server with a limit on messages of 100,000 bytes.
fn receive(frames: &[u8]) -> Result<Message, Error> {
    let agreed = Agreed::new(Direction { bits: 15, takeover: false }, Direction { bits: 15, takeover: true });
    let mut endpoint = Endpoint::new(Role::Server, agreed.into(), &Settings::default(), 1);
    let config = WebSocketConfig::default().max_message_size(Some(100_000)).max_frame_size(Some(100_000));
    endpoint.engine = WebSocketContext::new(Role::Server, Some(config.read_buffer_size(4096)));
    endpoint.stream.incoming = frames.to_vec();
    endpoint.read()
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let peer = Peer::new(Role::Client, Settings::default_agreement());
    let mut bytes = Vec::new();
    peer.frame(&mut Rng::new(7), first, payload, &mut bytes);
    bytes
}

impl Settings {
    fn default_agreement() -> Agreed {
        let direction = Direction { bits: 15, takeover: false };
        Agreed::new(direction, direction)
    }
}

fn corrupt(outcome: Result<Message, Error>) -> bool {
    matches!(outcome, Err(Error::Io(error)) if Failure::of(&error) == Some(Failure::Corrupt))
}

#[test]
fn the_examples_of_the_rfc() {
    // RFC 7692 section 7.2.3: one block, in fragments, from the window, not compressed, a last block, two blocks.
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let text = Message::text("Hello");
    assert_eq!(receive(&masked(0xC1, &hello)).unwrap(), text);
    let parts = [masked(0x41, &hello[..3]), masked(0x80, &hello[3..])].concat();
    assert_eq!(receive(&parts).unwrap(), text);
    let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
    assert_eq!(receive(&masked(0xC1, &stored)).unwrap(), text);
    assert_eq!(receive(&masked(0xC1, &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00])).unwrap(), text);
    let two = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
    assert_eq!(receive(&masked(0xC1, &two)).unwrap(), text);
    let agreed = Agreed::new(Direction { bits: 9, takeover: true }, Direction { bits: 9, takeover: true });
    let mut endpoint = Endpoint::new(Role::Server, agreed.into(), &Settings::default(), 1);
    // The last block of the first message does not end the window.
    let last = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    endpoint.stream.incoming =
        [masked(0xC1, &last), masked(0xC1, &[0xF2, 0x00, 0x11, 0x00, 0x00]), masked(0xC1, &[0])].concat();
    assert_eq!(endpoint.read().unwrap(), text);
    assert_eq!(endpoint.read().unwrap(), text);
    assert_eq!(endpoint.read().unwrap(), Message::text(""));
}

#[test]
fn corrupt_data_is_said_to_be_corrupt() {
    // A reserved block type; a reference beyond the beginning; cut off within a block; nothing at all.
    assert!(corrupt(receive(&masked(0xC1, &[0x07, 0xFF]))));
    assert!(corrupt(receive(&masked(0xC1, &[0xF2, 0x00, 0x11, 0x00, 0x00]))));
    assert!(corrupt(receive(&masked(0xC1, &[0xF2, 0x48, 0xCD]))));
    assert!(corrupt(receive(&masked(0xC1, &[]))));
    // Valid data, but not text.
    let not_text = [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF, 0x00];
    assert!(matches!(receive(&masked(0xC1, &not_text)), Err(Error::Utf8(_))));
}

#[test]
fn reserved_bits_where_they_mean_nothing_are_the_engines_to_refuse() {
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    let start = masked(0x41, &hello[..3]);
    for frames in [
        masked(0xC9, b""),
        masked(0xA1, b"x"),
        masked(0x91, b"x"),
        masked(0xE1, &hello),
        [start.clone(), masked(0xC0, &hello[3..])].concat(),
        [start.clone(), masked(0xC1, &hello)].concat(),
        [masked(0x01, b"plain"), masked(0xC0, b"x")].concat(),
        [masked(0x01, b"plain"), masked(0xC1, b"x")].concat(),
        masked(0xC0, b"x"),
        [start.clone(), masked(0x81, b"x")].concat(),
        vec![0xC1, 0x01, 0x00],
    ] {
        assert!(matches!(receive(&frames), Err(Error::Protocol(_))), "{frames:x?}");
    }
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let mut peer = Peer::new(Role::Client, Settings::default_agreement());
    let small = peer.deflate(&vec![0; 100_000]);
    assert_eq!(receive(&masked(0xC2, &small)).unwrap().len(), 100_000);
    let bomb = peer.deflate(&vec![0; 50_000_000]);
    assert!(matches!(receive(&masked(0xC2, &bomb)), Err(Error::Capacity(_))));
}
