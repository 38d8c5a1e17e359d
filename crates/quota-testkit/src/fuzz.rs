//! What fuzz tests share: a corpus of small files, what is done to them, and runs that are the same every time.
//!
//! A test reads every file of `tests/corpus/<decoder>/`, then files that were flipped, cut, doubled, filled
//! and spliced, then bytes from nowhere. They are ordinary tests on the stable compiler: a fuzzer that looks for
//! new paths finds more in a night, and these are run with every change. What a failure comes down to belongs
//! into the corpus.

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Longest input from nowhere, in bytes.
const RANDOM_BYTES_MAX: usize = 200;
/// Most damages to one file.
const DAMAGES_MAX: usize = 5;
/// Numbers at which something ends.
pub const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    7,
    60,
    127,
    128,
    255,
    1_000,
    1_001,
    65_536,
    999_999_999,
    1_000_000_000,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    (1 << 53) - 1,
    1 << 53,
    9_223_372_036,
    253_402_300_800,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

/// An input that a failure shows readably.
#[derive(Clone)]
pub struct Input(pub Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Damage to a file, at places that fit every length.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Remove(Index, Index),
    Double(Index, Index),
    Insert(Index, Vec<u8>),
    /// The rest is that of another file.
    Splice(Index, Index),
}

/// Runs a test on so many inputs, or on as many as `QUOTA_TEST_CASES` says where that is more. A failure shows
/// the smallest input that was found for it.
pub fn run<S: Strategy>(cases: u32, inputs: &S, test: impl Fn(S::Value)) {
    let set = std::env::var("QUOTA_TEST_CASES").ok();
    let set = set.and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: cases.max(set.unwrap_or(0)),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        max_shrink_iters: 4096,
        ..Config::default()
    };
    let done = TestRunner::new(config).run(inputs, |input| {
        test(input);
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}

/// Runs a decoder on its corpus, on damaged files of it and on bytes from nowhere. `read` asserts what must
/// hold and says whether the input was taken: `valid-…` files must be, `bad-…` files must not.
pub fn fuzz(decoder: &str, cases: u32, pieces: &[&str], read: impl Fn(&[u8]) -> bool) {
    let files = corpus(decoder);
    for (name, bytes) in &files {
        let taken = read(bytes);
        assert!(taken || !name.starts_with("valid-"), "{name} is refused");
        assert!(!taken || !name.starts_with("bad-"), "{name} is taken");
    }
    let taken = [false, true].map(|_| Cell::new(0_u32));
    let files = files.into_iter().map(|(_, bytes)| bytes).collect();
    run(cases, &inputs(files, pieces), |input| {
        let count = &taken[usize::from(read(&input.0))];
        count.set(count.get() + 1);
    });
    let [refused, taken] = taken.map(Cell::into_inner);
    assert!(
        refused > cases / 100 && taken > cases / 100,
        "{decoder}: {refused} refused and {taken} taken: the corpus or the damage is too dull"
    );
}

/// The same for a decoder of text.
pub fn fuzz_text(decoder: &str, cases: u32, pieces: &[&str], read: impl Fn(&str) -> bool) {
    fuzz(decoder, cases, pieces, |bytes| {
        read(&String::from_utf8_lossy(bytes))
    });
}

/// The files of a decoder, by name.
pub fn corpus(decoder: &str) -> Vec<(String, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut above = here.ancestors().map(|above| above.join("tests/corpus"));
    let directory = above.find(|corpus| corpus.is_dir()).unwrap().join(decoder);
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus of {decoder} is gone");
    files
}

/// Damaged files, and now and then bytes from nowhere.
pub fn inputs(files: Vec<Vec<u8>>, pieces: &[&str]) -> impl Strategy<Value = Input> + use<> {
    let mut inserted: Vec<Vec<u8>> = pieces.iter().map(|p| p.as_bytes().to_vec()).collect();
    inserted.extend(NUMBERS.iter().map(|n| n.to_string().into_bytes()));
    inserted.extend(NUMBERS.iter().map(|n| n.to_le_bytes().to_vec()));
    inserted.extend([&b"\0"[..], b"\xff\xff\xff\xff", "ü€\u{202e}".as_bytes()].map(<[u8]>::to_vec));
    let at = any::<Index>;
    let damage = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        at().prop_map(Damage::Cut),
        (at(), at()).prop_map(|(from, to)| Damage::Remove(from, to)),
        (at(), at()).prop_map(|(from, to)| Damage::Double(from, to)),
        (at(), select(inserted)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), at()).prop_map(|(at, from)| Damage::Splice(at, from)),
    ];
    let damaged = (
        select(files.clone()),
        select(files),
        vec(damage, 0..DAMAGES_MAX),
    );
    prop_oneof![
        7 => damaged.prop_map(|(mut bytes, other, damages)| {
            for damage in damages {
                damage.strike(&mut bytes, &other);
            }
            Input(bytes)
        }),
        1 => vec(any::<u8>(), 0..RANDOM_BYTES_MAX).prop_map(Input),
    ]
}

impl Damage {
    fn strike(self, bytes: &mut Vec<u8>, other: &[u8]) {
        let place = |at: Index, length: usize| at.index(length + 1);
        let length = bytes.len();
        let range = |one: Index, two: Index| {
            let (one, two) = (place(one, length), place(two, length));
            one.min(two)..one.max(two)
        };
        match self {
            Self::Flip(..) | Self::Set(..) if bytes.is_empty() => {}
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << (bit % 8),
            Self::Set(at, byte) => bytes[at.index(length)] = byte,
            Self::Cut(at) => bytes.truncate(place(at, length)),
            Self::Remove(from, to) => {
                bytes.drain(range(from, to));
            }
            Self::Double(from, to) => {
                let range = range(from, to);
                let piece = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, piece);
            }
            Self::Insert(at, piece) => {
                let at = place(at, length);
                bytes.splice(at..at, piece);
            }
            Self::Splice(at, from) => {
                bytes.truncate(place(at, length));
                bytes.extend_from_slice(&other[place(from, other.len())..]);
            }
        }
    }
}
