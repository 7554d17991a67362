//! Rules of compression, on a host whose memory comes first.

use super::*;

#[test]
fn smaller_contexts_save_their_share() {
    let all = advice(&[compressing(1_000, 100_000.0)], &Reading::default(), &summary(), &Rates::default());
    // By the formulas 302,080 become 16,384 + 9,216; of what is held, so much less.
    let saved = 100_000.0 * (1.0 - 25_600.0 / 302_080.0);
    let left = (200_000.0 + saved) * 1_000.0 / (200_000.0 - saved);
    assert_eq!(effect(find(&all, "shrink-compression")), (2_000, 1_000 + left as u64));
    assert_eq!(effect(find(&all, "share-compression")), (2_000, 4_000));
    let mut small = summary();
    small.holders.get_mut(&7).expect("there").compression_bytes = CONNECTIONS * 20_000;
    let all = advice(&[compressing(1_000, 20_000.0)], &Reading::default(), &small, &Rates::default());
    assert!(!given(&all, "shrink-compression"), "they are small already");
}

#[test]
fn contexts_that_the_process_has_no_memory_for_are_not_saved() {
    let told = |ceiling: Ceiling| {
        advice(&[ceiling], &Reading::default(), &summary(), &rates(0, 0, 0, 0))
            .into_iter()
            .any(|advice| advice.id.contains("compression"))
    };
    // A connection has 150,000 bytes of the process.
    assert!(told(compressing(1_000, 150_000.0)));
    assert!(!told(compressing(1_000, 150_001.0)) && !told(memory(1_000)));
}

#[test]
fn idle_connections_need_no_contexts() {
    let told = |messages: u64| {
        let rates = rates(0, messages, messages, 500);
        advice(&[compressing(1_000, 100_000.0)], &Reading::default(), &summary(), &rates)
    };
    // A message a minute keeps contexts for 10 s of 60: five sixths are saved.
    let saved = 100_000.0 * 5.0 / 6.0;
    let left = (200_000.0 + saved) * 1_000.0 / (200_000.0 - saved);
    let all = told(2);
    let idle = find(&all, "free-idle-compression");
    assert_eq!(effect(idle), (2_000, 1_000 + left as u64));
    assert!(
        idle.evidence.contains("a message every 60.0 s, so that at most 17% of them"),
        "{}",
        idle.evidence
    );
    assert!(find(&told(0), "free-idle-compression").evidence.contains("no message was seen for 2 min"));
    assert!(!given(&told(120), "free-idle-compression"), "a message a second keeps all of them busy");
    let unwatched = Rates::default();
    let all = advice(&[compressing(1_000, 100_000.0)], &Reading::default(), &summary(), &unwatched);
    assert!(!given(&all, "free-idle-compression"), "nothing is known of messages");
}

#[test]
fn compression_that_is_hardly_used_is_for_nothing() {
    let told = |compressed: u64, bytes: u64| {
        let ceilings = [compressing(1_000, 100_000.0), bandwidth(2_000)];
        advice(&ceilings, &Reading::default(), &summary(), &rates(0, 360, compressed, bytes))
    };
    let unused = told(2, 500);
    let stop = find(&unused, "stop-unused-compression");
    let evidence = "; <1% of the messages are compressed, and a message has 500 bytes on average";
    assert!(stop.evidence.ends_with(evidence), "{}", stop.evidence);
    assert_eq!(effect(stop), (2_000, 3_000), "bandwidth comes first then");
    let small = told(2, 63);
    assert_eq!(effect(find(&small, "do-not-compress-small-messages")), (2_000, 3_000));
    assert!(!given(&small, "stop-unused-compression"));
    // How large a compressed message was cannot be seen.
    let used = told(360, 40);
    assert!(!given(&used, "stop-unused-compression") && !given(&used, "do-not-compress-small-messages"));
}
