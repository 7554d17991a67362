//! Payloads that look like frames once they are masked, or as they are.

use fastrand::Rng;

/// Makes so many bytes.
pub(crate) type Fill = fn(&mut Rng, usize) -> Vec<u8>;

/// Each kind with its name.
pub(crate) const KINDS: &[(Fill, &str)] = &[
    (zeros, "zeros"),
    (spaces, "spaces"),
    (periodic, "periodic"),
    (lines, "JSON lines"),
    (numbers, "numbers"),
    (noise, "as good as compressed"),
];

fn zeros(_: &mut Rng, len: usize) -> Vec<u8> {
    vec![0; len]
}

fn spaces(_: &mut Rng, len: usize) -> Vec<u8> {
    vec![b' '; len]
}

fn periodic(random: &mut Rng, len: usize) -> Vec<u8> {
    let period = random.usize(1..=16);
    let period = noise(random, period);
    period.into_iter().cycle().take(len).collect()
}

fn lines(random: &mut Rng, len: usize) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < len {
        text.push_str(&format!("{{\"id\":{},\"name\":\"BA\",\"ok\":true}}\n", random.u32(10_000..100_000)));
    }
    text.into_bytes()[..len].to_vec()
}

fn numbers(random: &mut Rng, len: usize) -> Vec<u8> {
    let numbers = std::iter::repeat_with(|| (1.0 + random.f64() / 16.0).to_le_bytes());
    numbers.take(len / 8 + 1).flatten().take(len).collect()
}

fn noise(random: &mut Rng, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}
