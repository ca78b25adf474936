//! From a URL to a broker: the names that are shared inside the process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError, Weak},
};

use longshore_core::{ConnectOptions, Error, ErrorKind, Name, Result, printable};

use crate::{broker::MemoryBroker, state::Shared};

/// Named brokers alive at a time, so that names made from input cannot fill the memory.
const MOST_NAMES: usize = 1024;

static NAMED: Mutex<BTreeMap<Name, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// The broker a URL names.
pub(crate) fn broker(url: &str, options: &ConnectOptions) -> Result<MemoryBroker> {
    let Some(rest) = url.strip_prefix("memory:") else {
        let shown = printable(url.split(':').next().unwrap_or_default(), 32);
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("the scheme \"{shown}\" is not \"memory:\""),
        ));
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    if rest.is_empty() {
        return Ok(MemoryBroker::new(options));
    }
    let name = Name::new(rest)?;
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = named.get(&name).and_then(Weak::upgrade) {
        return Ok(MemoryBroker::of(shared));
    }
    named.retain(|_, shared| shared.strong_count() > 0);
    if named.len() >= MOST_NAMES {
        return Err(Error::new(
            ErrorKind::Full,
            format!(
                "{MOST_NAMES} named memory brokers are alive already; drop some or use \"memory:\""
            ),
        ));
    }
    let broker = MemoryBroker::new(options);
    named.insert(name, broker.downgrade());
    Ok(broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shared_while_somebody_holds_it_and_forgotten_afterwards() {
        let options = ConnectOptions::default();
        let first = broker("memory:address-a", &options).expect("a name");
        let again = broker("memory://address-a", &options).expect("the same name");
        let other = broker("memory:address-b", &options).expect("another name");
        assert!(first.is(&again) && !first.is(&other));
        let private = broker("memory:", &options).expect("private");
        assert!(!private.is(&broker("memory:", &options).expect("private")));
        let address = first.downgrade();
        drop((first, again));
        assert_eq!(address.strong_count(), 0);
    }

    #[test]
    fn other_schemes_and_hostile_names_are_invalid() {
        for url in ["redis://x", "", "memory", "memory:a b", "memory:amq.x"] {
            let error = broker(url, &ConnectOptions::default()).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        }
    }
}
