//! Iterators in other network namespaces: iter/tcp shows the sockets of the namespace in which it was opened.
//!
//! No namespace is held on to: that would keep it, its devices and their peers alive when its container is long gone.
//! What is kept is where it was found, and every pass opens it anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

use super::privilege;
use crate::host::namespaces::{self, Places};

/// Pause before a namespace that was not found is looked for again; doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// Why a namespace was not visited.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Error)]
pub(super) enum Unreached {
    /// No way leads to it.
    #[error(
        "not found: no process, thread, mount or descriptor that the agent may look at leads there (it takes the host's \
         /proc and CAP_SYS_PTRACE)"
    )]
    NotFound,
    /// The kernel does not let us in.
    #[error("setns: {0}; entering takes CAP_SYS_ADMIN")]
    Refused(String),
    /// What was to be done there failed.
    #[error("{0}")]
    Failed(String),
}

/// Which namespaces to visit.
#[derive(Debug, Clone)]
pub(super) enum Which {
    /// These, by inode number.
    Named(BTreeSet<u32>),
    /// Every one that can be found.
    All,
}

/// What came of a pass over namespaces.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Namespaces that were wanted and not visited.
    pub(super) unreached: BTreeMap<u32, Unreached>,
    /// CPU time that others than the calling thread took for it.
    pub(super) cpu: Duration,
}

/// Finds and enters namespaces other than the agent's own.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    places: Places,
    /// Those in which connections older than the agent were found.
    pub(super) with_candidates: BTreeSet<u32>,
    /// Those that were not found: when to look again, and the pause after that.
    missing: HashMap<u32, (Instant, Duration)>,
    helper: Option<Helper>,
}

impl Namespaces {
    /// Starts the thread that enters namespaces, while there are privileges to leave to it.
    pub(super) fn start(&mut self) -> Result<(), String> {
        self.helper = Some(Helper::start()?);
        Ok(())
    }

    /// The namespaces there are to visit.
    pub(super) fn list(&mut self, which: &Which) -> BTreeSet<u32> {
        namespaces::own().map_or_else(BTreeSet::new, |own| self.find(which, own))
    }

    /// Opens something in one of them.
    pub(super) fn open_in<T: Send + 'static>(
        &mut self,
        namespace: u32,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Unreached> {
        let (opened, _) = self.enter(namespace, open)?;
        opened.map_err(|error| Unreached::Failed(error.to_string()))
    }

    /// Opens something in each namespace but the agent's own, on a thread that is there for the moment, and has it
    /// visited on the calling thread. What fails for one namespace does not keep others from being visited.
    pub(super) fn for_each<T: Send + 'static>(
        &mut self,
        which: &Which,
        open: impl Fn() -> io::Result<T> + Clone + Send + 'static,
        mut visit: impl FnMut(T) -> io::Result<()>,
    ) -> Pass {
        let mut pass = Pass::default();
        let Some(own) = namespaces::own() else {
            return pass;
        };
        for namespace in self.find(which, own) {
            let opened = match self.enter(namespace, open.clone()) {
                Ok((opened, cpu)) => {
                    pass.cpu += cpu;
                    opened
                }
                Err(why) => {
                    pass.unreached.insert(namespace, why);
                    continue;
                }
            };
            if let Err(error) = opened.and_then(&mut visit) {
                pass.unreached.insert(namespace, Unreached::Failed(error.to_string()));
            }
        }
        pass
    }

    /// The namespaces to visit, each with a place or known to have none.
    fn find(&mut self, which: &Which, own: u32) -> BTreeSet<u32> {
        let wanted: BTreeSet<u32> = match which {
            Which::Named(wanted) => wanted.iter().copied().filter(|namespace| *namespace != own).collect(),
            Which::All => {
                self.places = namespaces::all();
                self.places.keys().copied().filter(|namespace| *namespace != own).collect()
            }
        };
        self.places.retain(|namespace, _| wanted.contains(namespace));
        self.missing.retain(|namespace, _| wanted.contains(namespace));
        let now = Instant::now();
        let due = |namespace: &u32| self.missing.get(namespace).is_none_or(|(again, _)| *again <= now);
        let unknown: BTreeSet<u32> =
            wanted.iter().copied().filter(|namespace| !self.leads_to(*namespace) && due(namespace)).collect();
        if !unknown.is_empty() {
            self.look_for(&unknown, now);
        }
        wanted
    }

    /// A process that was in a namespace may be gone, and its number be another's.
    fn leads_to(&self, namespace: u32) -> bool {
        self.places.get(&namespace).is_some_and(|place| namespaces::inode(place) == Some(namespace))
    }

    fn look_for(&mut self, unknown: &BTreeSet<u32>, now: Instant) {
        let found = namespaces::find(unknown);
        for namespace in unknown {
            if found.contains_key(namespace) {
                self.missing.remove(namespace);
            } else {
                self.places.remove(namespace);
                let pause = self.missing.get(namespace).map_or(FIRST_PAUSE, |(_, pause)| *pause);
                self.missing.insert(*namespace, (now + pause, (pause * 2).min(LONGEST_PAUSE)));
            }
        }
        self.places.extend(found);
    }

    /// Runs `job` in a namespace; returns what came of it and the CPU time that took elsewhere.
    fn enter<T: Send + 'static>(
        &mut self,
        namespace: u32,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Duration), Unreached> {
        let place = self.places.get(&namespace).ok_or(Unreached::NotFound)?;
        let opened = namespaces::open(namespace, place);
        let file = opened.ok().flatten().ok_or(Unreached::NotFound)?;
        let ended = || Unreached::Failed("the thread that enters namespaces has ended".into());
        let helper = match &self.helper {
            Some(helper) => helper,
            None => self.helper.insert(Helper::start().map_err(Unreached::Failed)?),
        };
        let (sender, result) = channel();
        let work = Box::new(move || {
            // Nobody waits any more only where the agent ends.
            let _ = sender.send(job());
        });
        helper.jobs.send(Job { namespace: file, work }).map_err(|_| ended())?;
        let (entered, cpu) = helper.done.recv().map_err(|_| ended())?;
        entered.map_err(|error| Unreached::Refused(error.to_string()))?;
        let result = result.recv().map_err(|_| Unreached::Failed("nothing was done there".into()))?;
        Ok((result, cpu))
    }
}

/// Something to do in a namespace.
struct Job {
    namespace: File,
    work: Box<dyn FnOnce() + Send>,
}

/// A thread that may enter namespaces, when no other thread of the agent may any more. It parses nothing and stays where it is: for
/// each visit it starts another thread, which ends there. So none ever has to find its way back, and /proc/net stays the agent's own.
#[derive(Debug)]
struct Helper {
    jobs: Sender<Job>,
    /// Whether the namespace let us in, and the CPU time it took.
    done: Receiver<(io::Result<()>, Duration)>,
}

impl Helper {
    fn start() -> Result<Self, String> {
        let (jobs, receiver) = channel::<Job>();
        let (sender, done) = channel();
        let (ready, kept) = channel();
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let body = move || {
            let _ = ready.send(privilege::keep_for_namespaces());
            for job in receiver {
                let visit = named("namespace").spawn(move || visit(job));
                // A visit that panicked has said so.
                let died = |_| (Err(io::Error::other("the visit panicked")), Duration::ZERO);
                let outcome = match visit {
                    Ok(visit) => visit.join().unwrap_or_else(died),
                    Err(error) => (Err(error), Duration::ZERO),
                };
                if sender.send(outcome).is_err() {
                    return;
                }
            }
        };
        named("namespaces").spawn(body).map_err(|error| error.to_string())?;
        kept.recv().map_err(|_| "the thread that enters namespaces has ended")??;
        Ok(Self { jobs, done })
    }
}

fn visit(job: Job) -> (io::Result<()>, Duration) {
    let entered = enter(&job.namespace);
    if entered.is_ok() {
        (job.work)();
    }
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    (entered, Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec.unsigned_abs() as u32))
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}
