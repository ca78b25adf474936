//! Every target over its corpus, and over mutations of it that are the same every time.

use std::panic;

use longshore_fuzz::{Mutations, TARGETS, Target, artifacts, corpus};

/// Mutations of each target.
const MUTATIONS: u64 = 20_000;

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target of this name");
    let inputs = corpus(name).expect("a corpus");
    assert!(!inputs.is_empty(), "{name} has a corpus");
    for (file, octets) in &inputs {
        run(target, file, octets);
    }
    let seeds = inputs.into_iter().map(|(_, octets)| octets).collect();
    let mutations = Mutations::new(seeds, 1);
    for number in 0..MUTATIONS {
        run(
            target,
            &format!("mutation-{number}"),
            &mutations.get(number),
        );
    }
}

fn run(target: &Target, file: &str, octets: &[u8]) {
    if let Err(broken) = panic::catch_unwind(|| (target.run)(octets)) {
        let path = artifacts(target.name).expect("a folder").join(file);
        std::fs::write(&path, octets).expect("written");
        eprintln!("the input is {}", path.display());
        panic::resume_unwind(broken);
    }
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )+

        #[test]
        fn every_target_is_tested() {
            let names = [$(stringify!($name)),+];
            assert_eq!(TARGETS.map(|target| target.name), names);
        }
    };
}

targets! { amqp_envelope amqp_frames codec history names redis_envelope redis_replies urls }
