//! The delay ladder: queues whose time to live doubles from one to the next.
//!
//! A delay is written in binary, in units of 50 ms, into the routing key: `0.0.1.0.1.orders`. Each
//! level is an exchange and a queue; where the level's bit is 1 the message waits there for the
//! queue's own time to live, and the broker passes it down, dead-lettering at least once. Below the
//! last level an exchange delivers by address, and what nobody takes goes to a queue of its own,
//! because 32 undeliverable messages would stop a level for ever.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::ExchangeBindOptions,
    types::{AMQPValue, FieldTable},
};
use longshore_core::{Declare, Result, chaos::Flaw};

use crate::{
    convert::{long, short},
    objects::{answered, bind, bind_on, declare_exchange, declare_queue, lasting},
    session::Session,
};

/// The ladder of this version. Another number of levels needs another name: stale bindings
/// misroute.
pub(crate) struct Ladder;

const LEVELS: u32 = 30;
const UNIT: Duration = Duration::from_millis(50);
/// Each bit set is one more queue to pass; this many keep a delay within 0.8 %.
const BITS: u32 = 8;
const DELIVERY: &str = "longshore.delay.v1.30.delivery";
const LOST: &str = "longshore.delay.v1.30.lost";

/// The longest delay the ladder can hold: 621 days.
pub(crate) const LONGEST: Duration = Duration::from_millis(50 * ((1 << LEVELS) - 1));

/// The longest name of a queue that a delay can end in: AMQP's 255 octets of a routing key less those
/// of the delay.
pub(crate) const LONGEST_ADDRESS: usize = 255 - 2 * LEVELS as usize;

fn level(level: u32) -> String {
    format!("longshore.delay.v1.{LEVELS}.{level:02}")
}

/// The delay in units, rounded up so that nothing is early.
fn units(delay: Duration) -> u64 {
    let units = delay.as_micros().div_ceil(UNIT.as_micros());
    let units = u64::try_from(units)
        .unwrap_or(u64::MAX)
        .min((1 << LEVELS) - 1);
    let drop = (u64::BITS - units.leading_zeros()).saturating_sub(BITS);
    let step = 1_u64 << drop;
    (units.div_ceil(step) * step).min((1 << LEVELS) - 1)
}

impl Ladder {
    /// Where to publish so that `address` gets the message after `delay`: exchange and routing
    /// key. `None` where there is nothing to wait for.
    pub(crate) fn route(delay: Duration, address: &str) -> Option<(String, String)> {
        let units = match Flaw::HalfTheDelay.on() {
            true => units(delay / 2),
            false => units(delay),
        };
        let highest = units.checked_ilog2()?;
        let mut key = String::with_capacity(2 * LEVELS as usize + address.len());
        for level in (0..LEVELS).rev() {
            key.push_str(if units & (1 << level) == 0 {
                "0."
            } else {
                "1."
            });
        }
        key.push_str(address);
        Some((level(highest), key))
    }

    /// Creates the ladder, from the bottom up. Doing it again changes nothing.
    pub(crate) async fn declare(session: &Session) -> Result<()> {
        Self::declare_delivery(session).await?;
        let mut below = DELIVERY.to_owned();
        for n in 0..LEVELS {
            let name = level(n);
            let mut arguments = lasting();
            let wait = UNIT.as_millis() << n;
            let wait = AMQPValue::LongLongInt(i64::try_from(wait).unwrap_or(i64::MAX));
            arguments.insert("x-message-ttl".into(), wait);
            arguments.insert("x-dead-letter-exchange".into(), long(&below));
            arguments.insert("x-dead-letter-strategy".into(), long("at-least-once"));
            arguments.insert("x-overflow".into(), long("reject-publish"));
            declare_exchange(session, &name, ExchangeKind::Topic, FieldTable::default()).await?;
            declare_queue(session, &name, arguments, Declare::Create).await?;
            let before = "*.".repeat((LEVELS - 1 - n) as usize);
            let channel = session.channel().await?;
            bind_on(&channel, &name, &name, &format!("{before}1.#")).await?;
            let key = format!("{before}0.#");
            let passed = channel.exchange_bind(
                short("exchange name", &below)?,
                short("exchange name", &name)?,
                short("binding", &key)?,
                ExchangeBindOptions::default(),
                FieldTable::default(),
            );
            answered(&format!("binding \"{below}\" to \"{name}\""), &name, passed).await?;
            below = name;
        }
        Ok(())
    }

    /// Checks that the ladder is there and creates nothing.
    ///
    /// # Errors
    /// [`NoSuchQueue`](longshore_core::ErrorKind::NoSuchQueue).
    pub(crate) async fn verify(session: &Session) -> Result<()> {
        for n in 0..LEVELS {
            declare_queue(session, &level(n), FieldTable::default(), Declare::Verify).await?;
        }
        Ok(())
    }

    /// Makes these queues reachable from the ladder. Exactly one `*` per level: with `#`, what is
    /// meant for `eu.orders` would also reach `orders`.
    pub(crate) async fn bind(session: &Session, queues: &[&str]) -> Result<()> {
        Self::declare_delivery(session).await?;
        let channel = session.channel().await?;
        for queue in queues {
            Self::bind_on(&channel, queue).await?;
        }
        Ok(())
    }

    /// See [`bind`](Self::bind), which must have come before.
    pub(crate) async fn bind_on(channel: &Channel, queue: &str) -> Result<()> {
        let key = format!("{}{queue}", "*.".repeat(LEVELS as usize));
        bind_on(channel, queue, DELIVERY, &key).await
    }

    async fn declare_delivery(session: &Session) -> Result<()> {
        let none = FieldTable::default();
        declare_exchange(session, LOST, ExchangeKind::Fanout, none).await?;
        declare_queue(session, LOST, lasting(), Declare::Create).await?;
        bind(session, LOST, LOST, "").await?;
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), long(LOST));
        declare_exchange(session, DELIVERY, ExchangeKind::Topic, arguments).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_never_rounded_down_and_never_up_by_more_than_a_hundredth() {
        for ms in (1..200_000).chain((1..400).map(|n| n * 86_400_000)) {
            let delay = Duration::from_millis(ms);
            let waits = UNIT * u32::try_from(units(delay)).expect("30 bits");
            assert!(waits >= delay, "{delay:?}");
            let late = waits - delay;
            assert!(late <= UNIT + delay / 100, "{delay:?} waits {waits:?}");
        }
    }

    #[test]
    fn at_most_eight_levels_are_passed() {
        for ms in [1, 49, 50, 51, 12_750, 12_800, 1_234_567, 31_536_000_000] {
            let hops = units(Duration::from_millis(ms)).count_ones();
            assert!((1..=BITS).contains(&hops), "{ms} ms: {hops}");
        }
        assert_eq!(units(Duration::MAX), (1 << LEVELS) - 1);
    }

    #[test]
    fn the_route_starts_at_the_highest_bit_and_ends_with_the_address() {
        assert_eq!(Ladder::route(Duration::ZERO, "orders"), None);
        let (exchange, key) =
            Ladder::route(Duration::from_millis(250), "eu.orders").expect("a route");
        assert_eq!(exchange, "longshore.delay.v1.30.02");
        assert!(key.ends_with("0.0.1.0.1.eu.orders"), "{key}");
        assert_eq!(key.len(), 60 + "eu.orders".len());
        assert!(LONGEST > Duration::from_secs(366 * 86_400));
    }
}
