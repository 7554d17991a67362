//! A series through the real model: growth, ceilings and levels, under a clock that is told.

use std::time::Duration;

use agent::document::{Ceiling, Descriptors, Kind, LevelChanged, Listener};
use agent::model::{
    Costs, Growths, Holder, HostDescriptors, Inputs, Levels, Lineages, Member, ProcessReading, Rates,
    Reading, Summary, Thresholds, ceilings,
};

use crate::series::Moment;

/// What was said of one limit.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Its ceiling at each moment at which there was one.
    pub(crate) ceilings: Vec<(Duration, Ceiling)>,
    /// Changes of its level.
    pub(crate) changes: Vec<(Duration, LevelChanged)>,
}

/// What was said of the process's limit and of the host's, which is the same number.
pub(crate) fn replay(moments: &[Moment], limit: u64) -> [Said; 2] {
    let mut said = [Said::default(), Said::default()];
    let (mut lineages, mut growth) = (Lineages::default(), Growths::default());
    let mut levels = Levels::new(Thresholds::default());
    let (costs, rates) = (Costs::default(), Rates::default());
    for moment in moments {
        let Moment { at, processes } = moment;
        let member = |(pid, connections): &(u32, u64)| Member {
            pid: *pid,
            comm: "server",
            cgroup: Some("/web"),
            connections: *connections,
        };
        let members: Vec<Member<'_>> = processes.iter().map(member).collect();
        lineages.observe(*at, &members);
        growth.observe_total(*at, moment.total());
        growth.observe_processes(*at, &lineages, processes.iter().copied());
        let mut all = ceilings(&Inputs {
            connections: moment.total(),
            reading: &reading(moment, limit),
            earlier: None,
            summary: &summary(moment),
            swept: &summary(moment),
            listeners: &[] as &[Listener],
            growth: &growth,
            costs: &costs,
            rates: &rates,
            lineages: &lineages,
        });
        let changes = levels.observe(*at, &mut all);
        let followed = processes.last().map(|(pid, _)| format!("process:{pid}"));
        for (said, scope) in said.iter_mut().zip([followed, Some("host".to_owned())]) {
            let Some(scope) = scope else { continue };
            let is = |kind: Kind, of: &str| kind == Kind::Descriptors && of == scope;
            let ceiling = all.iter().find(|ceiling| is(ceiling.kind, &ceiling.scope));
            said.ceilings.extend(ceiling.map(|ceiling| (*at, ceiling.clone())));
            let changes = changes.iter().filter(|change| is(change.kind, &change.scope));
            said.changes.extend(changes.map(|change| (*at, change.clone())));
        }
    }
    said
}

fn reading(moment: &Moment, limit: u64) -> Reading {
    let process = |(pid, connections): &(u32, u64)| ProcessReading {
        pid: *pid,
        comm: "server".into(),
        cgroup: Some("/web".into()),
        descriptors: Descriptors {
            open: Some(*connections),
            soft_limit: Some(limit),
            hard_limit: Some(limit),
        },
        ..ProcessReading::default()
    };
    Reading {
        descriptors: Some(HostDescriptors { allocated: moment.total(), max: limit }),
        processes: moment.processes.iter().map(process).collect(),
        ..Reading::default()
    }
}

fn summary(moment: &Moment) -> Summary {
    let holder =
        |(pid, connections): &(u32, u64)| (*pid, Holder { connections: *connections, ..Holder::default() });
    Summary { holders: moment.processes.iter().map(holder).collect(), ..Summary::default() }
}
