use super::*;

fn buffer(edge: u32) -> Box<Reorder> {
    let mut buffer = Box::new(Reorder::FREE);
    buffer.begin(edge, 0);
    buffer
}

fn arrive(buffer: &mut Reorder, start: u32, end: u32) -> bool {
    let mut arrival = Arrival::new(buffer, Range::new(start, end));
    if !arrival.begin() {
        return true;
    }
    while arrival.step() {}
    arrival.end(1)
}

/// All of the ranges, in order.
fn ranges(buffer: &Reorder) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> =
        buffer.ranges[..buffer.count as usize].iter().map(|range| (range.start, range.end)).collect();
    ranges.sort_by_key(|(start, _)| start.wrapping_sub(buffer.edge));
    ranges
}

fn resume(buffer: &Reorder, parsed: u32, to: u32) -> u32 {
    let mut resume = Resume::new(buffer, parsed, to);
    while resume.step() {}
    resume.end()
}

#[test]
fn ranges_merge_and_the_edge_moves_over_them() {
    let mut holes = buffer(100);
    assert!(arrive(&mut holes, 200, 300) && arrive(&mut holes, 400, 500) && arrive(&mut holes, 300, 350));
    assert_eq!(ranges(&holes), [(200, 350), (400, 500)]);
    assert!(arrive(&mut holes, 340, 410), "joins two ranges");
    assert_eq!(ranges(&holes), [(200, 500)]);
    assert!(!holes.is_whole());
    assert!(arrive(&mut holes, 50, 220));
    assert_eq!((holes.edge, holes.is_whole(), holes.run(100)), (500, true, 400));
}

#[test]
fn there_are_so_many_ranges_and_no_more() {
    let mut holes = buffer(0);
    for index in 0..RANGES as u32 {
        assert!(arrive(&mut holes, 100 * index + 10, 100 * index + 20));
    }
    assert!(!arrive(&mut holes, 1_000_000, 1_000_010));
    assert!(arrive(&mut holes, 20, 110), "touches two");
    assert!(arrive(&mut holes, 1_000_000, 1_000_010));
}

#[test]
fn sequence_numbers_wrap() {
    let mut holes = buffer(u32::MAX - 9);
    assert!(arrive(&mut holes, 5, 20) && arrive(&mut holes, u32::MAX - 4, 2));
    assert_eq!(ranges(&holes), [(u32::MAX - 4, 2), (5, 20)]);
    assert!(arrive(&mut holes, u32::MAX - 9, u32::MAX - 3) && arrive(&mut holes, 2, 5));
    assert_eq!((holes.edge, holes.is_whole()), (20, true));
}

#[test]
fn the_parser_goes_on_at_the_first_byte_that_is_kept() {
    let mut holes = buffer(100);
    arrive(&mut holes, 300, 400);
    arrive(&mut holes, 200, 250);
    assert_eq!(resume(&holes, 100, 350), 200);
    assert_eq!(resume(&holes, 100, 150), 150, "what lies before it may still come");
    assert_eq!(resume(&holes, 250, 350), 300);
    assert_eq!(resume(&holes, 220, 350), 220, "nothing is missing here");
    assert_eq!(resume(&holes, 400, 500), 500);
}

/// Chunks as the programs have them.
struct Chunks {
    parsed: u32,
    buffer: Box<Reorder>,
    chunks: Vec<[u8; (CHUNK + SLACK) as usize]>,
}

impl Chunks {
    fn keep(&mut self, seq: u32, bytes: &[u8]) -> bool {
        let Some(mut keeping) = Keeping::new(self.parsed, seq, bytes.len() as u32) else {
            return false;
        };
        while let Some(piece) = keeping.piece() {
            assert!(keeping.taken() < bytes.len() as u32);
            let chunk = &mut self.buffer.places[piece.place];
            if *chunk == 0 {
                self.chunks.push([0; (CHUNK + SLACK) as usize]);
                *chunk = self.chunks.len() as u16;
                self.buffer.held += 1;
            }
            let [at, from, len] = [piece.at, piece.from, piece.len].map(|number| number as usize);
            self.chunks[usize::from(*chunk) - 1][at..at + len].copy_from_slice(&bytes[from..from + len]);
            keeping.kept();
        }
        assert_eq!(keeping.taken(), bytes.len() as u32);
        true
    }

    fn load(&self, seq: u32, len: usize) -> &[u8] {
        let (chunk, at) = locate(seq);
        &self.chunks[usize::from(self.buffer.places[place(chunk)]) - 1][at as usize..at as usize + len]
    }
}

#[test]
fn what_was_kept_in_pieces_is_read_in_one() {
    let bytes: Vec<u8> = (0..3 * CHUNK + 100).map(|at| (at % 251) as u8).collect();
    // Around the end of the number space as well.
    for base in [0u32, 77, 0u32.wrapping_sub(CHUNK + 9)] {
        for cut in [1, 7, 15, 16, 17, 1448, CHUNK as usize - 1, CHUNK as usize, 2 * CHUNK as usize + 3] {
            let mut kept = Chunks { parsed: base.wrapping_sub(5), buffer: buffer(base), chunks: Vec::new() };
            let pieces: Vec<_> = bytes.chunks(cut).enumerate().collect();
            // The last first, so that a chunk's slack is written before and after its bytes.
            for (index, piece) in pieces.iter().rev().filter(|(index, _)| index % 2 == 0).chain(pieces.iter())
            {
                assert!(kept.keep(base.wrapping_add((index * cut) as u32), piece));
            }
            for at in 0..bytes.len() - 16 {
                assert_eq!(
                    kept.load(base.wrapping_add(at as u32), 16),
                    &bytes[at..at + 16],
                    "{base} {cut} {at}"
                );
            }
            let held = kept.buffer.held;
            let mut freed = 0;
            let past = base.wrapping_add(2 * CHUNK);
            kept.buffer.low = kept.parsed / CHUNK;
            while let Some(chunk) = kept.buffer.shed(past) {
                freed += u32::from(chunk != 0);
            }
            assert_eq!((kept.buffer.held, kept.buffer.low), (held - freed, past / CHUNK));
            while kept.buffer.spill().is_some() {}
            assert_eq!((kept.buffer.held, kept.buffer.places.iter().any(|chunk| *chunk != 0)), (0, false));
        }
    }
}

#[test]
fn what_lies_beyond_the_window_is_not_kept() {
    let far = WINDOW - CHUNK;
    assert!(Keeping::new(CHUNK, CHUNK + far - 10, 10).is_some());
    assert!(Keeping::new(CHUNK, CHUNK + far - 10, 11).is_none());
    assert!(Keeping::new(CHUNK, CHUNK - 1, 10).is_none());
    assert!(Keeping::new(0, 1 << 31, u32::MAX).is_none());
}
