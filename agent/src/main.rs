//! headroom-agent.
use agent::kernel::{Programs, Options};
fn main() {
    let t = std::time::Instant::now();
    let mut p = match Programs::load(&Options { ports: vec![], log_level: 0 }) { Ok(p) => p, Err(e) => { println!("{e:?}\n{e}"); return; } };
    println!("{:?} {:?} {:?}", t.elapsed(), p.hooks, p.degraded);
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("Vm")).collect::<Vec<_>>().join(" "));
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_secs(1));
        p.events(|e| println!("{e:?}")).unwrap();
        p.find_owners().unwrap();
        p.sweep(|s| println!("{s:?}")).unwrap();
        println!("{:?}", p.listeners());
    }
}
