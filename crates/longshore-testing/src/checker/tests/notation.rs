//! Histories in few words.
//!
//! Lines end with a comma. Each may begin with `@MS`, its time (otherwise 1 ms after the one before
//! it), and `#N`, its process (otherwise 1 publishes and 9 works). Then:
//!
//! ```text
//! pub M [queue=NAME] [key=KEY:SEQ] [id=ID] [wait=MS] [fail=TIMES | FATE]
//! ok M, duplicate M, refused M, unknown M
//! start M ATTEMPT [token=T] [torn]     end M ATTEMPT HOW
//! effect M [token=T] [stale]           run M ATTEMPT [token=T]: start, effect, end
//! dead M REASON ATTEMPTS [torn]        left M, redriven M, wrong M
//! kill P, fault NAME, fixed NAME, healed, drained, stop MS, stopped, owns NAME TOKEN, memory BYTES
//! ```

use std::time::Duration;

use crate::history::{Answer, Effect, Ending, Event, Fate, Publish, Record};

/// The records of a history.
pub(super) fn records(history: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for line in history.split(',').map(str::trim) {
        let mut words = line.split_whitespace().peekable();
        let mut at = records.last().map_or(1, |record| millis(record.at) + 1);
        let mut process = None;
        while let Some(word) = words.next_if(|word| word.starts_with(['@', '#'])) {
            match word.split_at(1) {
                ("@", time) => at = number(time),
                (_, other) => process = u32::try_from(number(other)).ok(),
            }
        }
        let words: Vec<&str> = words.collect();
        let publishes = ["pub", "ok", "duplicate", "refused", "unknown"].contains(&words[0]);
        let process = process.unwrap_or(if publishes { 1 } else { 9 });
        for event in events(&words) {
            let at = Duration::from_millis(at);
            records.push(Record { at, process, event });
        }
    }
    records
}

fn events(words: &[&str]) -> Vec<Event> {
    let of = |place: usize| number(words[place]);
    let attempt = || u32::try_from(of(2)).expect("an attempt");
    let set = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let token = set("token=").map_or(0, number);
    let has = |word: &str| words.contains(&word);
    let start = || Event::Start {
        message: of(1),
        attempt: attempt(),
        token,
        lane: None,
        intact: !has("torn"),
    };
    let effect = |effect| Event::Effect {
        message: of(1),
        token,
        effect,
    };
    let end = |how| Event::End {
        message: of(1),
        attempt: attempt(),
        how,
    };
    let answer = |answer| Event::Answered {
        message: of(1),
        answer,
    };
    vec![match words[0] {
        "pub" => {
            let key = set("key=").map(|place| place.split_once(':').expect("key and place"));
            Event::Publish(Publish {
                message: of(1),
                queue: set("queue=").unwrap_or("orders").to_owned(),
                key: key.map(|(key, _)| number(key)),
                seq: key.map_or(0, |(_, seq)| number(seq)),
                dedup: set("id=").map(number),
                delay: Duration::from_millis(set("wait=").map_or(0, number)),
                fate: fate(words),
            })
        }
        "ok" => answer(Answer::Confirmed),
        "duplicate" => answer(Answer::Duplicate),
        "refused" => answer(Answer::Refused),
        "unknown" => answer(Answer::Unknown),
        "noting" => Event::Noting {
            message: of(1),
            attempt: attempt(),
        },
        "start" => start(),
        "end" => end(ending(words[3])),
        "effect" if has("stale") => effect(Effect::Stale),
        "effect" => effect(Effect::Accepted),
        "run" => return vec![start(), effect(Effect::Accepted), end(Ending::Succeeded)],
        "dead" => Event::Dead {
            message: of(1),
            reason: words[2].to_owned(),
            attempts: u32::try_from(of(3)).expect("attempts"),
            intact: !has("torn"),
        },
        "wrong" => Event::Wrong {
            message: of(1),
            what: "a reply of another".to_owned(),
        },
        "left" => Event::Left { message: of(1) },
        "redriven" => Event::Redriven { message: of(1) },
        "kill" => Event::Killed {
            victim: u32::try_from(of(1)).expect("a process"),
        },
        "fault" => Event::FaultBegins {
            fault: words[1].to_owned(),
        },
        "fixed" => Event::FaultEnds {
            fault: words[1].to_owned(),
        },
        "healed" => Event::Healed,
        "drained" => Event::Drained,
        "stop" => Event::StopBegins {
            within: Duration::from_millis(of(1)),
        },
        "stopped" => Event::StopEnds,
        "owns" => Event::Owns {
            partition: words[1].to_owned(),
            token: of(2),
        },
        "memory" => Event::Memory { resident: of(1) },
        word => panic!("no such line: {word}"),
    }]
}

fn fate(words: &[&str]) -> Fate {
    let mut fates = words.iter().filter_map(|word| match *word {
        "always" => Some(Fate::FailAlways),
        "refuse" => Some(Fate::Refuse),
        "panic" => Some(Fate::Panic),
        "hang" => Some(Fate::Hang),
        "abort" => Some(Fate::Abort),
        "unprocessable" => Some(Fate::Unprocessable),
        word => {
            let times = number(word.strip_prefix("fail=")?);
            Some(Fate::Fail(u32::try_from(times).expect("a number of times")))
        }
    });
    fates.next_back().unwrap_or(Fate::Succeed)
}

fn ending(word: &str) -> Ending {
    match word {
        "succeeded" => Ending::Succeeded,
        "sends" => Ending::SucceededIfSent,
        "failed" => Ending::Failed,
        "refused" => Ending::Refused,
        "panicked" => Ending::Panicked,
        "cancelled" => Ending::Cancelled,
        word => panic!("no such ending: {word}"),
    }
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("{word} is a number"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("a short history")
}
