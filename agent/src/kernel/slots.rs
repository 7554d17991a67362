//! Takes the slots of listeners back that are long gone.
//!
//! The kernel side gives a slot to each listener it meets, and has so many. When few are left, those are taken back whose
//! listener has had no connection for a while. A program may have looked the slot up a moment before its key was removed; so
//! the slot is looked at again at the next reading, and given back to its listener where something was counted meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent_ebpf::abi::{CLIENT_SLOTS, LISTENER_SLOTS, ListenerKey, ListenerTotals, Role, names};
use aya::maps::{HashMap, PerCpuArray, PerCpuValues, Queue};

use super::load::Programs;
use super::read::ReadError;
use super::record::MapValue;

/// `BPF_NOEXIST` of linux/bpf.h: an element that is there is left alone.
const BPF_NOEXIST: u64 = 1;

/// A listener without a connection for so long may be forgotten ...
const IDLE: Duration = Duration::from_secs(10);
/// ... while at least this share of its kind's slots is taken.
const SHARE_TAKEN: f64 = 0.75;

/// A slot whose key was removed.
#[derive(Debug)]
struct Retired {
    key: ListenerKey,
    slot: u32,
    totals: ListenerTotals,
}

/// What is to be done in the kernel's tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Keys to remove.
    pub(super) remove: Vec<ListenerKey>,
    /// Slots to zero and to give back, each with whether it is a client's.
    pub(super) free: Vec<(u32, bool)>,
    /// Keys to put back: their slots were used meanwhile.
    pub(super) put_back: Vec<(ListenerKey, u32)>,
}

/// Which listeners are idle, and which slots are on their way back.
#[derive(Debug, Default)]
pub(super) struct Slots {
    idle_since: BTreeMap<ListenerKey, (Instant, u64)>,
    retired: Vec<Retired>,
}

impl Slots {
    /// Takes a reading of every listener, its slot and its totals. `retired` reads the totals of a slot whose key is removed.
    pub(super) fn plan(
        &mut self,
        now: Instant,
        listeners: &[(ListenerKey, u32, ListenerTotals)],
        mut read: impl FnMut(u32) -> Option<ListenerTotals>,
    ) -> Plan {
        let mut plan = Plan::default();
        for retired in std::mem::take(&mut self.retired) {
            match read(retired.slot) {
                Some(totals) if totals == retired.totals => {
                    plan.free.push((retired.slot, is_client(retired.key)));
                }
                Some(_) => plan.put_back.push((retired.key, retired.slot)),
                // Looked at again.
                None => self.retired.push(retired),
            }
        }
        for (clients, slots) in [(true, CLIENT_SLOTS - 1), (false, LISTENER_SLOTS - CLIENT_SLOTS)] {
            let kind = || listeners.iter().filter(|(key, ..)| is_client(*key) == clients);
            if (kind().count() as f64) < SHARE_TAKEN * slots as f64 {
                self.idle_since.retain(|key, _| is_client(*key) != clients);
                continue;
            }
            for (key, slot, totals) in kind() {
                let opened = totals.opened + totals.adopted;
                if totals.connections() > 0 {
                    self.idle_since.remove(key);
                    continue;
                }
                let (since, then) = *self.idle_since.entry(*key).or_insert((now, opened));
                if then != opened {
                    self.idle_since.insert(*key, (now, opened));
                } else if now.duration_since(since) >= IDLE {
                    self.idle_since.remove(key);
                    plan.remove.push(*key);
                    self.retired.push(Retired { key: *key, slot: *slot, totals: *totals });
                }
            }
        }
        self.idle_since.retain(|key, _| listeners.iter().any(|(known, ..)| known == key));
        plan
    }
}

impl Programs {
    /// Takes slots back, and gives them out again.
    pub(super) fn recycle(&mut self, plan: &Plan) -> Result<(), ReadError> {
        let slots = self.ebpf.map_mut(names::LISTENERS).ok_or(ReadError::NoMap(names::LISTENERS))?;
        let mut slots = HashMap::<_, MapValue<ListenerKey>, u32>::try_from(slots)?;
        for key in &plan.remove {
            slots.remove(&MapValue(*key))?;
        }
        for (key, slot) in &plan.put_back {
            // Where the listener has found another slot meanwhile, this one keeps what was counted in it, and is not used again.
            let _ = slots.insert(MapValue(*key), slot, BPF_NOEXIST);
        }
        let totals = self.ebpf.map_mut(names::TOTALS).ok_or(ReadError::NoMap(names::TOTALS))?;
        let mut totals = PerCpuArray::<_, MapValue<ListenerTotals>>::try_from(totals)?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        for (slot, _) in &plan.free {
            totals.set(*slot, PerCpuValues::try_from(vec![MapValue(ListenerTotals::default()); cpus])?, 0)?;
        }
        for (clients, queue) in [(false, names::FREE_SERVER_SLOTS), (true, names::FREE_CLIENT_SLOTS)] {
            let map = self.ebpf.map_mut(queue).ok_or(ReadError::NoMap(queue))?;
            let mut map = Queue::<_, u32>::try_from(map)?;
            for (slot, _) in plan.free.iter().filter(|(_, client)| *client == clients) {
                map.push(slot, 0)?;
            }
        }
        Ok(())
    }
}

fn is_client(key: ListenerKey) -> bool {
    key.role == Role::Client as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(number: u16, role: Role) -> Vec<(ListenerKey, u32, ListenerTotals)> {
        let totals = ListenerTotals { opened: 3, closed: 3, ..ListenerTotals::default() };
        (0..number)
            .map(|port| (ListenerKey { netns: 1, port, role: role as u16 }, u32::from(port) + 1, totals))
            .collect()
    }

    #[test]
    fn idle_listeners_keep_their_slots_while_there_are_enough() {
        let (mut slots, start) = (Slots::default(), Instant::now());
        let few = listeners(20, Role::Client);
        assert_eq!(slots.plan(start, &few, |_| None), Plan::default());
        assert_eq!(slots.plan(start + 2 * IDLE, &few, |_| None), Plan::default());
    }

    #[test]
    fn idle_listeners_slots_come_back_and_used_ones_do_not() {
        let (mut slots, start) = (Slots::default(), Instant::now());
        let mut many = listeners(CLIENT_SLOTS as u16 - 1, Role::Client);
        many[7].2.closed = 2;
        many.extend(listeners(3, Role::Server));
        assert_eq!(slots.plan(start, &many, |_| None), Plan::default());
        let plan = slots.plan(start + IDLE, &many, |_| None);
        assert_eq!(
            plan.remove.len(),
            CLIENT_SLOTS - 2,
            "one has a connection, and servers have slots enough"
        );
        assert!(plan.free.is_empty());
        let rest = vec![many[7]];
        let idle = ListenerTotals { opened: 3, closed: 3, ..ListenerTotals::default() };
        let used = ListenerTotals { opened: 4, ..idle };
        let plan = slots.plan(start + IDLE, &rest, |slot| Some(if slot == 5 { used } else { idle }));
        assert_eq!(plan.put_back, [(many[4].0, 5)]);
        assert_eq!(plan.free.len(), CLIENT_SLOTS - 3);
        assert!(plan.free.iter().all(|(slot, client)| *client && *slot != 5 && *slot != 8));
    }

    #[test]
    fn a_listener_that_was_used_meanwhile_is_not_idle() {
        let (mut slots, start) = (Slots::default(), Instant::now());
        let mut many = listeners(CLIENT_SLOTS as u16 - 1, Role::Client);
        slots.plan(start, &many, |_| None);
        (many[0].2.opened, many[0].2.closed) = (9, 9);
        let plan = slots.plan(start + IDLE, &many, |_| None);
        assert!(!plan.remove.contains(&many[0].0));
        assert!(plan.remove.contains(&many[1].0));
    }
}
