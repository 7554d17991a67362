//! What the dashboard shows and how it reacts: a state machine without I/O.
//!
//! Events go in through [`App::update`], which says what is to be done; the renderers read the rest. The only thing a
//! renderer writes back is how much fitted on the screen ([`Scroll::fit`]), because paging depends on it.

mod columns;
mod filter;
mod keys;
mod rows;
mod scroll;

use agent::document::{Body, Connection, Envelope};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::view::View;

pub use columns::Column;
pub(crate) use columns::age_seconds;
pub use keys::{Action, BINDINGS, Binding, Key, Mode};
pub use rows::{Sort, rows};
pub use scroll::Scroll;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The agent said something.
    Envelope(Box<Envelope>),
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal changed its size.
    Resize,
    /// No more events will come; the reason if it is an error.
    Ended(Option<String>),
}

/// What an event calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that can be seen.
    None,
    /// Draw again.
    Redraw,
    /// Leave.
    Quit,
}

/// A screen of the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Screen {
    /// One row per connection.
    #[default]
    Connections,
    /// One row per listener.
    Listeners,
    /// Ceilings, where their numbers come from, and advice.
    Ceilings,
}

impl Screen {
    /// All screens, in the order of their keys.
    pub const ALL: [Screen; 3] = [Screen::Connections, Screen::Listeners, Screen::Ceilings];

    /// The screen's title.
    pub const fn title(self) -> &'static str {
        match self {
            Screen::Connections => "Connections",
            Screen::Listeners => "Listeners",
            Screen::Ceilings => "Ceilings",
        }
    }

    fn step(self, by: usize) -> Self {
        let place = Self::ALL.iter().position(|screen| *screen == self).unwrap_or(0);
        Self::ALL[(place + by) % Self::ALL.len()]
    }
}

/// The connection in the detail pane, as last heard of.
#[derive(Debug, Clone)]
pub struct Detail {
    /// The connection.
    pub connection: Connection,
    /// Whether it has ended since the pane was opened.
    pub closed: bool,
}

/// The dashboard's state.
#[derive(Debug, Default)]
pub struct App {
    live: View,
    frozen: Option<Box<View>>,
    screen: Screen,
    sort: Sort,
    filter: String,
    editing: bool,
    help: bool,
    detail: Option<Detail>,
    /// Id of the selected connection: the selection stays with it when the order changes.
    selected: Option<String>,
    ended: Option<Option<String>>,
    /// The connection table's window.
    pub table: Scroll,
    /// The window of whatever else scrolls.
    pub text: Scroll,
}

impl App {
    /// Takes in one event.
    pub fn update(&mut self, event: Event) -> Effect {
        match event {
            Event::Envelope(envelope) => self.hear(&envelope),
            Event::Key(key) => self.press(key),
            Event::Resize => Effect::Redraw,
            Event::Ended(error) => {
                self.ended = Some(error);
                Effect::Redraw
            }
        }
    }

    fn hear(&mut self, envelope: &Envelope) -> Effect {
        self.live.apply(envelope);
        if self.frozen.is_some() {
            return Effect::None;
        }
        let (connection, closed) = match &envelope.body {
            Body::ConnectionOpened(connection)
            | Body::ConnectionAdopted(connection)
            | Body::ConnectionUpdated(connection) => (connection, false),
            Body::ConnectionClosed(connection) => (connection, true),
            Body::ConnectionVanished(vanished) => {
                if let Some(detail) =
                    self.detail.as_mut().filter(|detail| detail.connection.id == vanished.id)
                {
                    detail.closed = true;
                }
                return Effect::Redraw;
            }
            _ => return Effect::Redraw,
        };
        if let Some(detail) = self.detail.as_mut().filter(|detail| detail.connection.id == connection.id) {
            *detail = Detail { connection: connection.clone(), closed };
        }
        Effect::Redraw
    }

    fn press(&mut self, key: KeyEvent) -> Effect {
        let mode = self.mode();
        if let Some(action) = keys::action(mode, key) {
            return self.act(action);
        }
        match key.code {
            KeyCode::Char(typed)
                if mode == Mode::Filter
                    && !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
            {
                self.filter.push(typed);
                Effect::Redraw
            }
            _ => Effect::None,
        }
    }

    fn act(&mut self, action: Action) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Close => self.close(),
            Action::Help => {
                self.help = !self.help;
                self.text.top();
            }
            Action::Show(screen) => self.show(screen),
            Action::NextScreen => self.show(self.screen.step(1)),
            Action::PreviousScreen => self.show(self.screen.step(Screen::ALL.len() - 1)),
            Action::Up => self.step(-1),
            Action::Down => self.step(1),
            Action::PageUp => self.step(-self.page()),
            Action::PageDown => self.step(self.page()),
            Action::Top => self.step(isize::MIN),
            Action::Bottom => self.step(isize::MAX),
            Action::Sort => self.sort = self.sort.next(),
            Action::Invert => self.sort.inverted = !self.sort.inverted,
            Action::Freeze => self.freeze(),
            Action::Detail => self.open_detail(),
            Action::Filter => self.editing = true,
            Action::KeepFilter => self.editing = false,
            Action::Erase => {
                self.filter.pop();
            }
            Action::ClearFilter => self.filter.clear(),
        }
        Effect::Redraw
    }

    /// Closes what is on top; with nothing on top, the filter that hides rows counts as such.
    fn close(&mut self) {
        if self.help {
            self.help = false;
        } else if self.editing {
            self.editing = false;
            self.filter.clear();
        } else if self.detail.take().is_none() {
            self.filter.clear();
        }
    }

    fn show(&mut self, screen: Screen) {
        self.screen = screen;
        self.text.top();
    }

    fn freeze(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(Box::new(self.live.clone())),
        };
        // What happened to the connection in the pane meanwhile.
        if let (None, Some(detail)) = (&self.frozen, &mut self.detail) {
            match self.live.connection(&detail.connection.id) {
                Some(connection) => detail.connection = connection.clone(),
                None => detail.closed = true,
            }
        }
    }

    fn open_detail(&mut self) {
        let rows = self.rows();
        let index = self.position(&rows);
        self.detail =
            rows.get(index).map(|connection| Detail { connection: (*connection).clone(), closed: false });
        self.text.top();
    }

    fn page(&self) -> isize {
        let window = if self.mode() == Mode::Connections { &self.table } else { &self.text };
        window.page() as isize
    }

    fn step(&mut self, by: isize) {
        if self.mode() != Mode::Connections {
            self.text.by(by);
            return;
        }
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else {
            return;
        };
        let index = self.position(&rows).saturating_add_signed(by).min(last);
        self.selected = Some(rows[index].id.clone());
        self.table.index = index;
    }

    /// The mode decides which keys are bound.
    pub fn mode(&self) -> Mode {
        if self.help {
            Mode::Help
        } else if self.editing {
            Mode::Filter
        } else if self.detail.is_some() {
            Mode::Detail
        } else {
            match self.screen {
                Screen::Connections => Mode::Connections,
                Screen::Listeners => Mode::Listeners,
                Screen::Ceilings => Mode::Ceilings,
            }
        }
    }

    /// What is shown: the present, or the moment it was frozen.
    pub fn view(&self) -> &View {
        self.frozen.as_deref().unwrap_or(&self.live)
    }

    /// Rows of the connection table: filtered and sorted.
    pub fn rows(&self) -> Vec<&Connection> {
        rows(self.view(), self.sort, &self.filter)
    }

    /// Place of the selected connection among `rows`; where it has gone, its place stays.
    pub fn position(&self, rows: &[&Connection]) -> usize {
        let selected = self.selected.as_deref();
        let place = selected.and_then(|id| rows.iter().position(|connection| connection.id == id));
        place.unwrap_or(self.table.index).min(rows.len().saturating_sub(1))
    }

    /// The screen under whatever is on top.
    pub fn screen(&self) -> Screen {
        self.screen
    }

    /// Order of the connection table.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// The filter's text; empty means all.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether the display stands still.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The detail pane, if open.
    pub fn detail(&self) -> Option<&Detail> {
        self.detail.as_ref()
    }

    /// Whether the stream has ended, and the error if one ended it.
    pub fn ended(&self) -> Option<Option<&str>> {
        self.ended.as_ref().map(|error| error.as_deref())
    }
}

#[cfg(test)]
mod tests;
