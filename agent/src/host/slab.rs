//! Slab objects of an established, accepted TCP connection, in the sizes this kernel gives them (/proc/slabinfo).

use std::collections::HashMap;

use crate::model::SlabCost;

/// The socket itself, by address family.
const TCP: &str = "TCP";
const TCP_V6: &str = "TCPv6";
/// What every descriptor of a socket costs beside it: inode, file, dentry, security blobs.
const SHARED: &[&str] = &["sock_inode_cache", "filp", "dentry"];
/// Security blobs, and what watching it through epoll costs. Caches that a kernel lacks or merges into others are left
/// out: the sum is then a little low, never invented.
const OPTIONAL: &[&str] = &["lsm_inode_cache", "lsm_file_cache", "eventpoll_epi", "eventpoll_pwq", "ep_head"];

pub(super) fn read() -> Result<SlabCost, String> {
    let text = super::text::named("/proc/slabinfo")?;
    parse(&text)
}

fn parse(text: &str) -> Result<SlabCost, String> {
    let sizes: HashMap<&str, u64> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?, fields.nth(2)?.parse().ok()?))
        })
        .collect();
    let size =
        |name: &str| sizes.get(name).copied().ok_or_else(|| format!("/proc/slabinfo has no cache {name}"));
    let mut beside = 0;
    for name in SHARED {
        beside += size(name)?;
    }
    beside += OPTIONAL.iter().filter_map(|name| sizes.get(name)).sum::<u64>();
    let ipv4 = size(TCP)? + beside;
    // A kernel without IPv6 has no such cache, and then no such connection either.
    let ipv6 = size(TCP_V6).map_or(ipv4, |size| size + beside);
    Ok(SlabCost { ipv4, ipv6 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_sizes_are_summed() {
        let text = "slabinfo - version: 2.1\n# name <active_objs>\nTCPv6 1 2 2496 13 8 : x\nTCP 1 2 2368 13 8 : x\n\
                    sock_inode_cache 1 2 832 39 8\nfilp 1 2 192 21 1\ndentry 1 2 192 21 1\neventpoll_epi 1 2 128 32 1\n";
        let cost = parse(text).expect("complete");
        assert_eq!((cost.ipv4, cost.ipv6), (2368 + 832 + 192 + 192 + 128, 2496 + 832 + 192 + 192 + 128));
        assert!(parse("TCP 1 2 2368 13 8\n").expect_err("incomplete").contains("sock_inode_cache"));
    }
}
