//! Mutations of the corpus, the same for the same seed.

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

/// Inputs made of others. Each depends on the seed and its number alone.
#[derive(Debug)]
pub struct Mutations {
    seeds: Vec<Vec<u8>>,
    seed: u64,
}

/// Inputs grow no longer than this.
const LONGEST: usize = 64 * 1024;
/// Numbers at which code changes its mind.
const INTERESTING: [u64; 16] = [
    0,
    1,
    7,
    8,
    64,
    127,
    128,
    129,
    255,
    256,
    32_767,
    65_535,
    131_072,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

impl Mutations {
    /// Mutations of these inputs.
    pub fn new(seeds: Vec<Vec<u8>>, seed: u64) -> Self {
        Self { seeds, seed }
    }

    /// The mutation of this number.
    pub fn get(&self, number: u64) -> Vec<u8> {
        let mixed = self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = SmallRng::seed_from_u64(mixed);
        let mut input = self.any(&mut random).to_vec();
        for _ in 0..random.random_range(1..=6) {
            self.mutate(&mut input, &mut random);
        }
        input.truncate(LONGEST);
        input
    }

    fn any(&self, random: &mut SmallRng) -> &[u8] {
        match self.seeds.len() {
            0 => &[],
            n => &self.seeds[random.random_range(0..n)],
        }
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut SmallRng) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..9) {
            0 => flip(input, at, random),
            1 => {
                let mut octet = [0];
                random.fill_bytes(&mut octet);
                replace(input, at, &octet);
            }
            2 => number(input, at, random),
            3 => input.truncate(at),
            4 => drop(input.drain(at..end(input, at, random))),
            5 => {
                let chunk = input[at..end(input, at, random)].to_vec();
                let times = random.random_range(1..=4);
                let to = random.random_range(0..=input.len());
                input.splice(to..to, chunk.repeat(times));
            }
            6 => {
                let mut more = vec![0; random.random_range(1..=8)];
                random.fill_bytes(&mut more);
                input.splice(at..at, more);
            }
            7 => {
                let other = self.any(random);
                let from = random.random_range(0..=other.len());
                let chunk = other[from..end(other, from, random)].to_vec();
                input.splice(at..at, chunk);
            }
            _ => {
                let other = self.any(random);
                let from = random.random_range(0..=other.len());
                let tail = other[from..].to_vec();
                input.truncate(at);
                input.extend(tail);
            }
        }
    }
}

fn flip(input: &mut [u8], at: usize, random: &mut SmallRng) {
    if let Some(octet) = input.get_mut(at) {
        *octet ^= 1 << random.random_range(0..8);
    }
}

/// One, two, four or eight octets become an interesting number, or one a little off.
fn number(input: &mut Vec<u8>, at: usize, random: &mut SmallRng) {
    let value = INTERESTING[random.random_range(0..INTERESTING.len())];
    let value = value
        .wrapping_add(random.random_range(0..3))
        .wrapping_sub(1);
    let octets = value.to_be_bytes();
    let width = 1 << random.random_range(0..4);
    replace(input, at, &octets[octets.len() - width..]);
}

fn replace(input: &mut Vec<u8>, at: usize, octets: &[u8]) {
    let end = (at + octets.len()).min(input.len());
    input.splice(at..end, octets.iter().copied());
}

fn end(input: &[u8], from: usize, random: &mut SmallRng) -> usize {
    let most = (input.len() - from).min(64);
    from + random.random_range(0..=most)
}
