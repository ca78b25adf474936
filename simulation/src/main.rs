//! `cargo xtask simulate`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

fn main() -> std::process::ExitCode {
    let begun = std::time::Instant::now();
    std::panic::set_hook(Box::new(|_| {}));
    let n: u64 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    let first: u64 = std::env::args()
        .nth(2)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    for seed in first..first + n {
        match longshore_simulation::run(seed) {
            Ok(outcome) => {
                if n == 1 {
                    println!("{}", outcome.scenario);
                    for r in &outcome.records {
                        println!("{}", serde_json::to_string(r).unwrap_or_default());
                    }
                }
                if outcome.has_failed() {
                    println!(
                        "seed {seed}: {} violations {:?}",
                        outcome.violations.len(),
                        outcome.wrongs
                    );
                    for v in &outcome.violations {
                        println!("  {v}");
                    }
                }
            }
            Err(error) => eprintln!("{seed}: {error}"),
        }
    }
    println!("{:?}", begun.elapsed());
    std::process::ExitCode::SUCCESS
}
