//! What a terminal obeys. A process names itself; directories, interfaces, paths and user agents are named by others: an escape
//! sequence in one of them would be obeyed by the terminal of whoever reads about it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with everything in it that a terminal obeys written out (`\u{1b}`), line ends included. Other characters stay, of
/// whichever script.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // A String takes everything.
        let _ = match is_obeyed(c) {
            true => write!(plain, "{}", c.escape_default()),
            false => plain.write_char(c),
        };
    }
    Cow::Owned(plain)
}

/// Whether a terminal does something on `c` instead of showing it: control characters (C0, DEL, C1), and of the format
/// characters (Unicode's Cf, Zl and Zp) all that turn the order of text round, end lines or show nothing. The two joiners
/// stay: Persian, Indic scripts and emoji are spelt with them.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out_and_everything_else_stays() {
        let plain = "größe 接続 ▶ – 👩\u{200d}💻 \\ \" é";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        assert_eq!(printable("\x1b[2J\u{9b}\x7f\r\n\u{202e}x"), r"\u{1b}[2J\u{9b}\u{7f}\r\n\u{202e}x");
        let obeyed = (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| is_obeyed(*c));
        for c in obeyed {
            assert!(printable(&c.to_string()).is_ascii(), "{}", c.escape_unicode());
        }
        assert!(('\0'..=' ').chain('\x7f'..='\u{9f}').all(|c| c == ' ' || is_obeyed(c)));
    }
}
