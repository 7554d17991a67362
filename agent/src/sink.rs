//! Where the event stream goes. A sink takes whole lines, and never ends the agent.

mod lines;
mod queue;
mod unix;

use std::io;
use std::sync::Arc;

use crate::daemon::{Control, Output};
use crate::document::{Audience, Envelope};

/// An open output.
pub struct Sink {
    target: Target,
    /// Told of what is lost, once there is an engine.
    control: Option<Arc<Control>>,
}

enum Target {
    /// A file, or standard output, of which a closed pipe ends the agent, successfully.
    Lines(lines::Lines),
    /// A listening socket with its readers.
    Unix(unix::Readers),
}

impl Sink {
    /// Opens an output.
    pub fn open(output: &Output) -> io::Result<Self> {
        let target = match output {
            Output::Stdout => Target::Lines(lines::Lines::stdout()?),
            Output::File(path) => Target::Lines(lines::Lines::file(path)?),
            Output::Unix(path) => Target::Unix(unix::Readers::listen(path)?),
        };
        Ok(Self { target, control: None })
    }

    /// From now on losses are told, and readers are accepted and sent what they missed.
    pub fn attach(&mut self, control: &Arc<Control>) -> io::Result<()> {
        self.control = Some(Arc::clone(control));
        match &mut self.target {
            Target::Unix(readers) => readers.attach(control),
            Target::Lines(_) => Ok(()),
        }
    }

    /// Writes one event as one line, or counts it as lost. An error is a pipe whose reader went away.
    pub fn write(&mut self, event: &Envelope) -> io::Result<()> {
        let lost = match &mut self.target {
            // Whoever reads a file has read it from its beginning.
            Target::Lines(_) if event.audience == Audience::Late => {
                self.control.iter().for_each(|control| control.acknowledge(1));
                0
            }
            Target::Lines(lines) => lines.write(event)?,
            Target::Unix(readers) => readers.send(event)?,
        };
        if let Some(control) = &self.control {
            control.count_lost_lines(lost);
        }
        Ok(())
    }

    /// Lets the engine go on where it waits for readers. To be called now and then.
    pub fn pace(&mut self) {
        if let Target::Unix(readers) = &mut self.target {
            readers.pace();
        }
    }

    /// After SIGHUP: a rotated file is opened anew under its name.
    pub fn reopen(&mut self) {
        if let Target::Lines(lines) = &mut self.target {
            lines.reopen();
        }
    }
}
