//! The fuzzer's targets (`fuzz/`) without the fuzzer: with their seeds, with seeds that were damaged,
//! and with chance.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn every_target_of_the_fuzzer_is_here() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let files = std::fs::read_dir(folder).expect("the fuzzer's targets");
    let mut files: Vec<String> = files
        .filter_map(|file| file.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    files.sort();
    let mut here: Vec<&str> = targets::SEEDS.iter().map(|(name, _, _)| *name).collect();
    here.sort_unstable();
    assert_eq!(files, here);
}

#[test]
fn the_seeds() {
    for (_, target, seeds) in targets::SEEDS {
        target(b"");
        seeds.iter().for_each(|seed| target(seed));
    }
}

/// What happens to a seed.
#[derive(Debug, Clone)]
enum Damage {
    Put(Index, u8),
    Insert(Index, u8),
    CutOff(Index),
    Repeat(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Put(at, byte)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<Index>().prop_map(Damage::CutOff),
        1 => any::<Index>().prop_map(Damage::Repeat),
    ]
}

fn damaged(seed: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for damage in damages {
        let places = bytes.len() + 1;
        match damage {
            Damage::Put(at, byte) => {
                if let Some(place) = bytes.get_mut(at.index(places)) {
                    *place = *byte;
                }
            }
            Damage::Insert(at, byte) => bytes.insert(at.index(places), *byte),
            Damage::CutOff(at) => bytes.truncate(at.index(places)),
            Damage::Repeat(at) => bytes.extend_from_within(at.index(places)..),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn seeds_that_were_damaged(which in any::<Index>(), damages in vec(damage(), 0..8)) {
        for (_, target, seeds) in targets::SEEDS {
            target(&damaged(which.get::<&[u8]>(seeds), &damages));
        }
    }

    #[test]
    fn chance(bytes in vec(any::<u8>(), 0..300)) {
        for (_, target, _) in targets::SEEDS {
            target(&bytes);
        }
    }
}
