//! Memory mappings of each process.

use super::{Inputs, Parts, connections};
use crate::document::{Ceiling, Kind, Unit};

pub(super) fn ceilings(inputs: &Inputs<'_>) -> Vec<Ceiling> {
    let ceiling = |process| {
        let process: &crate::model::ProcessReading = process;
        let basis = match process.memory_maps {
            Some(_) => {
                "mappings of its address space at the last sweep against vm.max_map_count; what a connection takes is not \
                 known: none, unless each has a thread or large buffers of its own"
            }
            None => "use is not known: iter/task did not load, or has not met this process yet",
        };
        let parts = Parts {
            used: process.memory_maps,
            limit: inputs.reading.memory_maps_max,
            connections: connections(inputs.swept, std::iter::once(process)),
            ..Parts::new(Kind::MemoryMaps, format!("process:{}", process.pid), Unit::Mappings, basis.into())
        };
        parts.ceiling(inputs)
    };
    inputs.reading.processes.iter().map(ceiling).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Level;
    use crate::model::ceilings::fixture::{compute, find, holders};
    use crate::model::{ProcessReading, Reading};

    #[test]
    fn mappings_are_the_processes_own_and_have_no_price() {
        let process = |pid, memory_maps| ProcessReading { pid, memory_maps, ..Default::default() };
        let processes = vec![process(7, Some(60_000)), process(8, None)];
        let reading = Reading { processes, memory_maps_max: Some(65_530), ..Reading::default() };
        let all = compute(&reading, &holders(&[(7, 5), (8, 6)]));
        let known = find(&all, Kind::MemoryMaps, "process:7");
        assert_eq!((known.used, known.limit, known.connections), (Some(60_000), Some(65_530), 5));
        assert_eq!((known.level, known.connections_left), (Level::Near, None));
        let unknown = find(&all, Kind::MemoryMaps, "process:8");
        assert_eq!((unknown.used, unknown.level), (None, Level::Unknown));
        assert!(unknown.basis.contains("iter/task"), "{}", unknown.basis);
    }
}
