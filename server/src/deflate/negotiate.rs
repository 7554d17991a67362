//! The negotiation of permessage-deflate in the handshake (RFC 7692 section 5 and 7.1; RFC 6455 section 9.1).
//!
//! A server looks at the offers in order and takes the first that is well-formed and that it can fulfil. A client makes one
//! offer and fails the connection if the answer is not one to that.

use std::fmt::Write;

use thiserror::Error;

use super::{Agreed, Direction, Settings};

/// The extension's name.
const NAME: &str = "permessage-deflate";
/// zlib's raw deflate has no smaller window.
const LEAST_BITS: u8 = 9;
/// The window where nothing else is said.
const MOST_BITS: u8 = 15;

/// The header field of offers and answers.
pub const FIELD: &str = "Sec-WebSocket-Extensions";

/// Why a client must fail the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadAnswer {
    /// It accepts what was not offered, or more than once, or is not well-formed.
    #[error("the server accepted an extension that was not offered")]
    NotOffered,
    /// A parameter is unknown, repeated, or has no proper value.
    #[error("the server's permessage-deflate parameters are malformed")]
    Malformed,
    /// A parameter is more than was offered, or one that had to come is missing.
    #[error("the server's permessage-deflate parameters do not fit the offer")]
    Unfit,
    /// The client's window is to have 8 bits, which zlib's raw deflate does not have.
    #[error("the server asks for a window that the client does not have")]
    TooSmall,
}

/// A window size as an offer or answer has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    Absent,
    /// Only a client may leave the value out, and only of its own window.
    Unsaid,
    Said(u8),
}

/// The parameters of one offer or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parameters {
    server_forgets: bool,
    client_forgets: bool,
    server_bits: Bits,
    client_bits: Bits,
}

impl Parameters {
    /// `None` where RFC 7692 section 7.1 says to decline.
    fn parse<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let absent = Bits::Absent;
        let mut found =
            Self { server_forgets: false, client_forgets: false, server_bits: absent, client_bits: absent };
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(unquote(value.trim())?)),
                None => (part.trim(), None),
            };
            let Self { server_forgets, client_forgets, server_bits, client_bits } = &mut found;
            match (name.to_ascii_lowercase().as_str(), value) {
                ("server_no_context_takeover", None) if !*server_forgets => *server_forgets = true,
                ("client_no_context_takeover", None) if !*client_forgets => *client_forgets = true,
                ("server_max_window_bits", Some(value)) if *server_bits == absent => {
                    *server_bits = Bits::Said(window_bits(value)?);
                }
                ("client_max_window_bits", Some(value)) if *client_bits == absent => {
                    *client_bits = Bits::Said(window_bits(value)?);
                }
                ("client_max_window_bits", None) if *client_bits == absent => *client_bits = Bits::Unsaid,
                _ => return None,
            }
        }
        Some(found)
    }
}

/// A server's choice among the offers in `fields`, the values of all [`FIELD`]s in order, and the value of the field in
/// its answer. `None`: no compression, and no such field.
pub fn answer<'a>(
    fields: impl IntoIterator<Item = &'a str>,
    settings: &Settings,
) -> Option<(Agreed, String)> {
    fields.into_iter().flat_map(|field| split(field, ',')).find_map(|offer| {
        let mut parts = split(offer, ';');
        let name = parts.next()?.trim();
        if !name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        fulfil(Parameters::parse(parts)?, settings)
    })
}

fn fulfil(offer: Parameters, settings: &Settings) -> Option<(Agreed, String)> {
    let server_bits = match offer.server_bits {
        Bits::Said(bits) if bits < LEAST_BITS => return None,
        Bits::Said(bits) => bits.min(settings.server_bits),
        Bits::Absent | Bits::Unsaid => settings.server_bits,
    };
    let client_bits = match offer.client_bits {
        Bits::Said(bits) => bits.min(settings.client_bits),
        Bits::Unsaid => settings.client_bits,
        Bits::Absent => MOST_BITS,
    };
    // A client that cannot be held to a window of the size we want to keep may be told to keep none.
    let too_large = client_bits > settings.client_bits;
    let server = Direction { bits: server_bits, takeover: settings.server_takeover && !offer.server_forgets };
    let client = Direction {
        bits: client_bits,
        takeover: settings.client_takeover && !offer.client_forgets && !too_large,
    };
    let agreed = Agreed::new(server, client);
    let mut field = NAME.to_owned();
    let limited = server.bits < MOST_BITS || offer.server_bits != Bits::Absent;
    write_parameters(&mut field, server, client, limited, client_bits < MOST_BITS);
    Some((agreed, field))
}

/// A client's offer: the value of its [`FIELD`].
pub fn offer(settings: &Settings) -> String {
    let (server, client) = wishes(settings);
    let mut field = NAME.to_owned();
    write_parameters(&mut field, server, client, server.bits < MOST_BITS, client.bits < MOST_BITS);
    if client.bits == MOST_BITS {
        // Not a limit of ours, but the server may set one.
        field += "; client_max_window_bits";
    }
    field
}

/// What the server made of [`offer`]: `fields` are the values of all [`FIELD`]s of its answer. `None`: no compression.
///
/// # Errors
/// When the connection must be failed.
pub fn judge<'a>(
    fields: impl IntoIterator<Item = &'a str>,
    settings: &Settings,
) -> Result<Option<Agreed>, BadAnswer> {
    let mut accepted =
        fields.into_iter().flat_map(|field| split(field, ',')).filter(|element| !element.trim().is_empty());
    let Some(answer) = accepted.next() else { return Ok(None) };
    let mut parts = split(answer, ';');
    let named = parts.next().is_some_and(|name| name.trim().eq_ignore_ascii_case(NAME));
    if !named || accepted.next().is_some() {
        return Err(BadAnswer::NotOffered);
    }
    let answer = Parameters::parse(parts).ok_or(BadAnswer::Malformed)?;
    let (server, client) = wishes(settings);
    let server_bits = match answer.server_bits {
        Bits::Said(bits) if bits <= server.bits => bits,
        Bits::Absent if server.bits == MOST_BITS => MOST_BITS,
        Bits::Said(_) | Bits::Absent | Bits::Unsaid => return Err(BadAnswer::Unfit),
    };
    let client_bits = match answer.client_bits {
        Bits::Said(bits) if bits < LEAST_BITS => return Err(BadAnswer::TooSmall),
        Bits::Said(bits) if bits <= client.bits => bits,
        Bits::Absent => client.bits,
        Bits::Said(_) => return Err(BadAnswer::Unfit),
        Bits::Unsaid => return Err(BadAnswer::Malformed),
    };
    if !server.takeover && !answer.server_forgets {
        return Err(BadAnswer::Unfit);
    }
    Ok(Some(Agreed::new(
        Direction { bits: server_bits, takeover: !answer.server_forgets },
        Direction { bits: client_bits, takeover: client.takeover && !answer.client_forgets },
    )))
}

/// What a client offers.
fn wishes(settings: &Settings) -> (Direction, Direction) {
    let Settings { server_bits, client_bits, server_takeover, client_takeover, .. } = *settings;
    (
        Direction { bits: server_bits, takeover: server_takeover },
        Direction { bits: client_bits, takeover: client_takeover },
    )
}

/// Appends what differs from the extension's defaults.
fn write_parameters(
    field: &mut String,
    server: Direction,
    client: Direction,
    say_server: bool,
    say_client: bool,
) {
    if !server.takeover {
        *field += "; server_no_context_takeover";
    }
    if !client.takeover {
        *field += "; client_no_context_takeover";
    }
    // Writing to a string cannot fail.
    if say_server {
        let _ = write!(field, "; server_max_window_bits={}", server.bits);
    }
    if say_client {
        let _ = write!(field, "; client_max_window_bits={}", client.bits);
    }
}

/// A decimal number from 8 to 15 without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let proper = !value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|bits| proper && (8..=MOST_BITS).contains(bits))
}

/// The content of a quoted string, or the value as it is.
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        // What is escaped is no number, whatever it is.
        Some(rest) => rest.strip_suffix('"').filter(|content| !content.contains(['"', '\\'])),
        None => Some(value).filter(|value| !value.is_empty()),
    }
}

/// Splits at `separator` outside quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |found: char| {
        match found {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return found == separator && !quoted,
        }
        false
    })
}

#[cfg(test)]
mod tests;
