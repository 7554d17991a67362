//! Command-line flags of a server that negotiates compression.

use agent::cli::parse_size;
use agent::model::zlib::{MEM_LEVELS, WINDOW_BITS};
use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum, value_parser};

use super::{Content, Settings};

/// What to do about offers of permessage-deflate.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Compression (permessage-deflate)")]
pub struct Flags {
    /// Whether offers of permessage-deflate are accepted
    #[arg(long, value_enum, value_name = "on|off", default_value_t = Switch::On)]
    deflate: Switch,
    /// Whose messages may refer to earlier ones: compresses better, and costs a context for each connection
    #[arg(long, value_enum, value_name = "SIDE", default_value_t = Takeover::None)]
    deflate_takeover: Takeover,
    /// Window of our compressor, as a logarithm; a client may ask for a smaller one
    #[arg(long, value_name = "BITS", default_value_t = Settings::default().server_bits,
        value_parser = ranged(WINDOW_BITS))]
    deflate_server_window_bits: u8,
    /// Window of clients that can be told; the others may not refer to earlier messages, unless this is 15
    #[arg(long, value_name = "BITS", default_value_t = Settings::default().client_bits,
        value_parser = ranged(WINDOW_BITS))]
    deflate_client_window_bits: u8,
    /// Hash table of our compressor: zlib's memLevel
    #[arg(long, value_name = "LEVEL", default_value_t = Settings::default().mem_level,
        value_parser = ranged(MEM_LEVELS))]
    deflate_mem_level: u8,
    /// Effort of our compressor: zlib's level
    #[arg(long, value_name = "LEVEL", default_value_t = Settings::default().level,
        value_parser = value_parser!(u8).range(0..=9))]
    deflate_level: u8,
    /// Messages smaller than this are sent as they are
    #[arg(long, value_name = "SIZE", default_value = "128B", value_parser = parse_size)]
    deflate_min_size: u64,
    /// Which messages we compress
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Settings::default().content)]
    deflate_content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Takeover {
    None,
    Server,
    Client,
    Both,
}

impl Flags {
    /// `None` declines every offer.
    pub fn settings(&self) -> Option<Settings> {
        let takeover = self.deflate_takeover;
        (self.deflate == Switch::On).then(|| Settings {
            server_bits: self.deflate_server_window_bits,
            client_bits: self.deflate_client_window_bits,
            server_takeover: matches!(takeover, Takeover::Server | Takeover::Both),
            client_takeover: matches!(takeover, Takeover::Client | Takeover::Both),
            mem_level: self.deflate_mem_level,
            level: self.deflate_level,
            min_size: usize::try_from(self.deflate_min_size).unwrap_or(usize::MAX),
            content: self.deflate_content,
        })
    }
}

fn ranged(range: std::ops::RangeInclusive<u8>) -> RangedI64ValueParser<u8> {
    value_parser!(u8).range(i64::from(*range.start())..=i64::from(*range.end()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        deflate: Flags,
    }

    #[test]
    fn the_flags_defaults_are_the_settings_defaults() {
        let program = Program::parse_from(["program"]);
        assert_eq!(program.deflate.settings(), Some(Settings::default()));
        assert_eq!(Program::parse_from(["program", "--deflate", "off"]).deflate.settings(), None);
    }
}
