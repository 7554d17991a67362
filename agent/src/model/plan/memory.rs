//! Memory: the kernel's for each TCP connection, the server's own and compression for each WebSocket.

use std::num::NonZeroU64;

use super::ceiling::Given;
use super::{Compression, KERNEL_BYTES, PlanError, Question};
use crate::document::{Ceiling, CostPart, Kind, Part, PlannedCompression, Range, Unit};
use crate::model::zlib;

/// Contexts of one connection: one compresses, one decompresses.
pub(super) fn compression(given: Compression) -> PlannedCompression {
    PlannedCompression {
        deflate_bytes: zlib::deflate_bytes(given.window_bits, given.mem_level),
        inflate_bytes: zlib::inflate_bytes(given.window_bits),
        shared: given.no_context_takeover,
    }
}

pub(super) fn ceiling(question: &Question) -> Result<Ceiling, PlanError> {
    let kernel = question.kernel_bytes_per_connection.unwrap_or(KERNEL_BYTES) as f64;
    let part = |part, cost| CostPart { part, cost, range: None, samples: 0 };
    let mut parts = vec![part(Part::KernelFixed, kernel / question.streams().get() as f64)];
    let mut how = vec![kernel_basis(question)];
    match question.bytes_per_connection {
        Some(own) => {
            parts.push(part(Part::Process, own.get() as f64));
            how.push("the server's own (--bytes-per-connection)".into());
        }
        None => how.push("the server's own is not given (--bytes-per-connection) and so left out".into()),
    }
    if let Some(given) = question.compression {
        let contexts = compression(given);
        let bytes = (contexts.deflate_bytes + contexts.inflate_bytes) as f64;
        if contexts.shared {
            how.push(format!(
                "compression none: without context takeover the connections of a thread share one pair of contexts of {bytes} bytes"
            ));
        } else {
            let most = bytes + zlib::SMALL_OBJECTS as f64;
            let range = Some(Range { least: bytes, most: Some(most) });
            parts.push(CostPart { range, ..part(Part::Compression, bytes) });
            how.push(format!(
                "compression by zlib's formulas: 2^({window}+2) + 2^({level}+9) to deflate, 2^{window} + 7 KiB to inflate",
                window = given.window_bits,
                level = given.mem_level
            ));
        }
    }
    let limit = if question.memory.is_some() { "--memory" } else { "the limit is not given (--memory)" };
    let cost = parts.iter().map(|part| part.cost).sum();
    Given {
        kind: Kind::Memory,
        unit: Unit::Bytes,
        what: "memory",
        limit: question.memory,
        cost: Some(cost),
        shared_by: NonZeroU64::MIN,
        parts,
        basis: format!("{limit}; cost: {}", how.join("; ")),
    }
    .ceiling(question)
}

fn kernel_basis(question: &Question) -> String {
    let source = match question.kernel_bytes_per_connection {
        Some(bytes) => format!("{bytes} bytes (--kernel-bytes-per-connection)"),
        None => format!("{KERNEL_BYTES} bytes (Linux 6.18, idle)"),
    };
    match question.streams_per_connection {
        None => format!("kernel {source}"),
        Some(streams) => format!(
            "kernel {source} of a TCP connection, shared by {streams} WebSockets; what the server keeps for the HTTP/2 \
             connection itself is not priced"
        ),
    }
}
