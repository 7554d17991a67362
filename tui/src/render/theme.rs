//! Colours and marks. Only the 16 colours every terminal has, and never a colour alone: a level has a mark and a word
//! as well.

use agent::document::Level;
use ratatui::style::{Color, Modifier, Style};

/// How things look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    color: bool,
}

impl Theme {
    /// With the 16 colours of the terminal's own palette.
    pub const COLOR: Theme = Theme { color: true };
    /// Without colour.
    pub const MONOCHROME: Theme = Theme { color: false };

    /// Colour, unless `NO_COLOR` is set to anything (<https://no-color.org>).
    pub fn from_environment() -> Self {
        let colorless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if colorless { Self::MONOCHROME } else { Self::COLOR }
    }

    /// A level's mark.
    pub const fn mark(level: Level) -> &'static str {
        match level {
            Level::Ok => "✓",
            Level::Near => "▲",
            Level::Critical => "✖",
            Level::Unknown => "?",
        }
    }

    /// A level's style.
    pub fn level(self, level: Level) -> Style {
        match level {
            Level::Ok => self.foreground(Color::Green),
            Level::Near => self.foreground(Color::Yellow),
            Level::Critical => self.foreground(Color::Red).add_modifier(Modifier::BOLD),
            Level::Unknown => self.dim(),
        }
    }

    /// What is there to be read second.
    pub fn dim(self) -> Style {
        // Bright black is dark grey on most palettes and, unlike the dim attribute, is rendered everywhere.
        if self.color { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    /// Titles and table headers.
    pub fn title(self) -> Style {
        self.foreground(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// Curves.
    pub fn curve(self) -> Style {
        self.foreground(Color::Blue)
    }

    /// Keys in the footer and the help.
    pub fn key(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The selected row, the current tab.
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A state people must not overlook.
    pub fn alert(self) -> Style {
        self.foreground(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    fn foreground(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}
