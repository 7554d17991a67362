//! Keys: one table says what is bound where. The dispatcher, the footer and the help overlay all read it.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::Screen;

/// What has the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The connection table.
    Connections,
    /// The listener table.
    Listeners,
    /// The ceilings.
    Ceilings,
    /// The detail pane.
    Detail,
    /// The line that edits the filter.
    Filter,
    /// The help overlay.
    Help,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave.
    Quit,
    /// Close what is on top.
    Close,
    /// Open or close the help.
    Help,
    /// Show a screen.
    Show(Screen),
    /// Show the next screen.
    NextScreen,
    /// Show the screen before.
    PreviousScreen,
    /// A line up.
    Up,
    /// A line down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the first line.
    Top,
    /// To the last line.
    Bottom,
    /// Sort by the next column.
    Sort,
    /// Turn the order round.
    Invert,
    /// Hold the display, or let it go on.
    Freeze,
    /// Open the detail pane.
    Detail,
    /// Edit the filter.
    Filter,
    /// Stop editing, keep the filter.
    KeepFilter,
    /// Erase the filter's last character.
    Erase,
    /// Empty the filter.
    ClearFilter,
}

/// A key as bound: Shift is part of the character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    code: KeyCode,
    control: bool,
}

/// Keys, where they are bound, and what they do.
#[derive(Debug)]
pub struct Binding {
    /// Any of these.
    pub keys: &'static [Key],
    /// In any of these modes.
    pub modes: &'static [Mode],
    /// Does this.
    pub action: Action,
    /// In a word for the footer; none where everybody tries the key anyway.
    pub hint: Option<&'static str>,
    /// In words for the help.
    pub help: &'static str,
}

const fn key(code: KeyCode) -> Key {
    Key { code, control: false }
}

const fn char(character: char) -> Key {
    key(KeyCode::Char(character))
}

const fn control(character: char) -> Key {
    Key { code: KeyCode::Char(character), control: true }
}

const fn bind(
    keys: &'static [Key],
    modes: &'static [Mode],
    action: Action,
    hint: Option<&'static str>,
    help: &'static str,
) -> Binding {
    Binding { keys, modes, action, hint, help }
}

const EVERYWHERE: &[Mode] =
    &[Mode::Connections, Mode::Listeners, Mode::Ceilings, Mode::Detail, Mode::Filter, Mode::Help];
const NOT_TYPING: &[Mode] = &[Mode::Connections, Mode::Listeners, Mode::Ceilings, Mode::Detail, Mode::Help];
const SCREENS: &[Mode] = &[Mode::Connections, Mode::Listeners, Mode::Ceilings];
const PANES: &[Mode] = &[Mode::Connections, Mode::Listeners, Mode::Ceilings, Mode::Detail];
const TABLE: &[Mode] = &[Mode::Connections];
const FILTER: &[Mode] = &[Mode::Filter];

/// Every binding, the ones the footer should not lose on a narrow terminal first.
pub const BINDINGS: &[Binding] = &[
    bind(&[char('q')], NOT_TYPING, Action::Quit, Some("quit"), "quit"),
    bind(&[control('c')], EVERYWHERE, Action::Quit, None, "quit, whatever is on top"),
    bind(&[char('?'), key(KeyCode::F(1))], NOT_TYPING, Action::Help, Some("help"), "this help"),
    bind(&[key(KeyCode::Enter)], FILTER, Action::KeepFilter, Some("keep"), "keep the filter"),
    bind(&[key(KeyCode::Esc)], FILTER, Action::Close, Some("drop"), "drop the filter"),
    bind(&[key(KeyCode::Backspace)], FILTER, Action::Erase, None, "erase a character"),
    bind(&[control('u')], FILTER, Action::ClearFilter, Some("empty"), "empty the filter"),
    bind(
        &[key(KeyCode::Esc)],
        &[Mode::Detail, Mode::Help],
        Action::Close,
        Some("close"),
        "close what is on top",
    ),
    bind(&[key(KeyCode::Esc)], TABLE, Action::Close, None, "drop the filter"),
    bind(&[char('/')], TABLE, Action::Filter, Some("filter"), "filter by address, process id or command"),
    bind(&[char('s')], TABLE, Action::Sort, Some("sort"), "sort by the next column"),
    bind(&[char('I')], TABLE, Action::Invert, Some("invert"), "turn the order round"),
    bind(&[char('p'), char(' ')], PANES, Action::Freeze, Some("freeze"), "hold the display, or let it go on"),
    bind(&[key(KeyCode::Enter)], TABLE, Action::Detail, Some("detail"), "all about the selected connection"),
    bind(&[key(KeyCode::Tab)], SCREENS, Action::NextScreen, Some("screen"), "next screen"),
    bind(&[key(KeyCode::BackTab)], SCREENS, Action::PreviousScreen, None, "screen before"),
    bind(&[char('1')], SCREENS, Action::Show(Screen::Connections), None, "connections"),
    bind(&[char('2')], SCREENS, Action::Show(Screen::Listeners), None, "listeners"),
    bind(&[char('3')], SCREENS, Action::Show(Screen::Ceilings), None, "ceilings and advice"),
    bind(&[key(KeyCode::Up), char('k')], NOT_TYPING, Action::Up, None, "a line up"),
    bind(&[key(KeyCode::Down), char('j')], NOT_TYPING, Action::Down, None, "a line down"),
    bind(&[key(KeyCode::PageUp)], NOT_TYPING, Action::PageUp, None, "a page up"),
    bind(&[key(KeyCode::PageDown)], NOT_TYPING, Action::PageDown, None, "a page down"),
    bind(&[key(KeyCode::Home), char('g')], NOT_TYPING, Action::Top, None, "to the top"),
    bind(&[key(KeyCode::End), char('G')], NOT_TYPING, Action::Bottom, None, "to the bottom"),
];

impl Binding {
    /// The keys' names, `a b`.
    pub fn names(&self) -> String {
        self.keys.iter().map(Key::to_string).collect::<Vec<_>>().join(" ")
    }
}

/// What `event` does in `mode`.
pub(super) fn action(mode: Mode, event: KeyEvent) -> Option<Action> {
    let pressed = Key { code: event.code, control: event.modifiers.contains(KeyModifiers::CONTROL) };
    let binding =
        BINDINGS.iter().find(|binding| binding.modes.contains(&mode) && binding.keys.contains(&pressed));
    binding.map(|binding| binding.action)
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            KeyCode::Char(' ') => f.write_str("Space"),
            KeyCode::Char(character) if self.control => write!(f, "Ctrl-{}", character.to_ascii_uppercase()),
            KeyCode::Char(character) => write!(f, "{character}"),
            KeyCode::F(number) => write!(f, "F{number}"),
            KeyCode::Up => f.write_str("↑"),
            KeyCode::Down => f.write_str("↓"),
            KeyCode::PageUp => f.write_str("PgUp"),
            KeyCode::PageDown => f.write_str("PgDn"),
            KeyCode::BackTab => f.write_str("Shift-Tab"),
            other => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_bound_twice_in_a_mode() {
        for mode in EVERYWHERE {
            let bound: Vec<Key> = BINDINGS
                .iter()
                .filter(|binding| binding.modes.contains(mode))
                .flat_map(|binding| binding.keys)
                .copied()
                .collect();
            for (place, key) in bound.iter().enumerate() {
                assert!(!bound[..place].contains(key), "{key} is bound twice in {mode:?}");
            }
        }
    }

    #[test]
    fn every_mode_can_be_left() {
        for mode in EVERYWHERE {
            let event = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(action(*mode, event), Some(Action::Quit));
        }
    }

    #[test]
    fn shift_is_part_of_the_character() {
        let event = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT);
        assert_eq!(action(Mode::Connections, event), Some(Action::Bottom));
        assert_eq!(char(' ').to_string(), "Space");
        assert_eq!(key(KeyCode::Enter).to_string(), "Enter");
    }
}
