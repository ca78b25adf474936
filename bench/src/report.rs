//! Medians, spread and ratios, as a table.

use std::time::Duration;

use crate::arguments::{Broker, Mode};

/// One run of one contestant.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) messages: u32,
    pub(crate) took: Duration,
    pub(crate) cpu: Option<Duration>,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    /// Handled or not, they were in the queue when all was over.
    pub(crate) left: u64,
    /// Nanoseconds, the shortest first.
    pub(crate) latencies: Vec<u64>,
}

/// All runs of one contestant.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    raw: bool,
    pub(crate) samples: Vec<Sample>,
}

/// All runs of all contestants in one mode.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) broker: Broker,
    pub(crate) mode: Mode,
    pub(crate) messages: u32,
    pub(crate) rows: Vec<Row>,
}

impl Sample {
    fn per_second(&self) -> f64 {
        f64::from(self.messages) / self.took.as_secs_f64().max(1e-9)
    }

    /// CPU seconds of the client for 100,000 messages.
    fn cpu(&self) -> f64 {
        let cpu = self.cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64());
        cpu * 100_000.0 / f64::from(self.messages)
    }

    /// Milliseconds that this part of the messages did not exceed.
    fn percentile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * part).round() as usize;
        self.latencies
            .get(place)
            .map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
    }
}

impl Row {
    pub(crate) fn new(name: &str, raw: bool) -> Self {
        Self {
            name: name.to_owned(),
            raw,
            samples: Vec::new(),
        }
    }

    /// Median, and the distance between the extremes as a part of it.
    fn of(&self, figure: impl Fn(&Sample) -> f64) -> (f64, f64) {
        let mut sorted: Vec<f64> = self.samples.iter().map(figure).collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
            return (f64::NAN, f64::NAN);
        };
        let upper = sorted[sorted.len() / 2];
        let lower = sorted[(sorted.len() - 1) / 2];
        let median = f64::midpoint(lower, upper);
        (median, (most - least) / median)
    }

    fn sum(&self, figure: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(figure).sum()
    }
}

impl Table {
    /// Whether nothing was lost. At-least-once allows duplicates, but without failures there should be none.
    pub(crate) fn is_sound(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.sum(|s| s.lost + s.duplicated) == 0)
    }

    /// Prints it as Markdown.
    pub(crate) fn print(&self) {
        let Self {
            broker,
            mode,
            messages,
            ..
        } = self;
        let rounds = self.rows.first().map_or(0, |row| row.samples.len());
        println!("\n### {mode} on {broker}: {messages} messages, medians of {rounds}\n");
        match mode {
            Mode::Latency => self.print_latencies(),
            Mode::Consume | Mode::Publish => self.print_rates(),
        }
    }

    fn print_rates(&self) {
        println!(
            "| {:<31} | messages/s | spread | of best raw | CPU s/100,000 | of best raw | lost | duplicated | left |",
            ""
        );
        println!(
            "|{}|-----------:|-------:|------------:|--------------:|------------:|-----:|-----------:|-----:|",
            "-".repeat(33)
        );
        let best = self.best_raw(|row| -row.of(Sample::per_second).0);
        for row in &self.rows {
            let (rate, spread) = row.of(Sample::per_second);
            let cpu = row.of(Sample::cpu).0;
            println!(
                "| {:<31} | {:>10} | {:>5.0}% | {:>11} | {cpu:>13.3} | {:>11} | {:>4} | {:>10} | {:>4} |",
                row.name,
                thousands(rate),
                spread * 100.0,
                ratio(rate, best.map(|best| best.of(Sample::per_second).0)),
                ratio(cpu, best.map(|best| best.of(Sample::cpu).0)),
                row.sum(|s| s.lost),
                row.sum(|s| s.duplicated),
                row.sum(|s| s.left),
            );
        }
    }

    fn print_latencies(&self) {
        println!(
            "| {:<31} | p50 ms | spread | of raw | p99 ms | spread | of raw | CPU s/100,000 | lost | duplicated | left |",
            ""
        );
        println!(
            "|{}|-------:|-------:|-------:|-------:|-------:|-------:|--------------:|-----:|-----------:|-----:|",
            "-".repeat(33)
        );
        let (half, most) = (
            |s: &Sample| s.percentile(0.5),
            |s: &Sample| s.percentile(0.99),
        );
        let best = self.best_raw(|row| row.of(half).0);
        for row in &self.rows {
            let ((p50, spread50), (p99, spread99)) = (row.of(half), row.of(most));
            println!(
                "| {:<31} | {p50:>6.3} | {:>5.0}% | {:>6} | {p99:>6.3} | {:>5.0}% | {:>6} | {:>13.3} | {:>4} | {:>10} | {:>4} |",
                row.name,
                spread50 * 100.0,
                ratio(p50, best.map(|best| best.of(half).0)),
                spread99 * 100.0,
                ratio(p99, best.map(|best| best.of(most).0)),
                row.of(Sample::cpu).0,
                row.sum(|s| s.lost),
                row.sum(|s| s.duplicated),
                row.sum(|s| s.left),
            );
        }
    }

    fn best_raw(&self, worth: impl Fn(&Row) -> f64) -> Option<&Row> {
        let raw = self.rows.iter().filter(|row| row.raw);
        raw.min_by(|a, b| worth(a).total_cmp(&worth(b)))
    }
}

fn ratio(figure: f64, best: Option<f64>) -> String {
    best.map_or_else(|| "-".to_owned(), |best| format!("{:.2}", figure / best))
}

fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, raw: bool, milliseconds: &[u64]) -> Row {
        let sample = |ms: &u64| Sample {
            messages: 1_000,
            took: Duration::from_millis(*ms),
            cpu: Some(Duration::from_millis(*ms)),
            lost: 0,
            duplicated: 0,
            left: 0,
            latencies: (1..=100).map(|n| n * 1_000_000).collect(),
        };
        Row {
            samples: milliseconds.iter().map(sample).collect(),
            ..Row::new(name, raw)
        }
    }

    #[test]
    fn the_median_the_spread_and_the_best_raw_loop_are_found() {
        let table = Table {
            broker: Broker::Memory,
            mode: Mode::Consume,
            messages: 1_000,
            rows: vec![
                row("naive", true, &[400]),
                row("best", true, &[100, 250, 200]),
                row("ours", false, &[50]),
            ],
        };
        let best = table
            .best_raw(|row| -row.of(Sample::per_second).0)
            .expect("two are raw");
        assert_eq!(best.name, "best");
        let (median, spread) = best.of(Sample::per_second);
        assert!((median - 5_000.0).abs() < 1e-6, "{median}");
        assert!((spread - 1.2).abs() < 1e-6, "{spread}");
        assert!((best.samples[0].cpu() - 10.0).abs() < 1e-6);
        assert!((best.samples[0].percentile(0.99) - 99.0).abs() < 1e-6);
        assert_eq!(thousands(1_234_567.4), "1,234,567");
    }
}
