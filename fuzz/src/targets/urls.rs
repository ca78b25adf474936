//! Addresses of brokers, and the secrets in them.

use std::{error::Error, fmt::Write as _};

use longshore::Connect;
use longshore_amqp::fuzzing as amqp;
use longshore_core::ConnectOptions;
use longshore_redis::fuzzing as redis;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::octets::Octets;

/// What the secret holds on either side, so that a part of it is found as well.
const FRONT: &str = "Kq7canary";
const BACK: &str = "yranac7qK";

/// An address is read or refused, and nothing that is shown of it, of its mistake or of a connection
/// to it holds any part of the password, however badly that is encoded.
pub fn urls(octets: &[u8]) {
    let mut octets = Octets::new(octets);
    let schemes = [
        "amqp://",
        "amqps://",
        "redis://",
        "rediss://",
        "redis+cluster://",
        "rediss+sentinel://",
        "redis+sentinel://",
        "rediss+cluster://",
        "kafka://",
        "memory:",
        "amqp:",
        "",
    ];
    let scheme = match octets.octet() {
        255 => octets.text(),
        n => schemes[usize::from(n) % schemes.len()].to_owned(),
    };
    let user = text(&mut octets, &["user", "", "us%40er", "u:", "12"]);
    let inside = text(
        &mut octets,
        &[
            "", "@", ":", "/", "?", "#", "[", "]", "%", "/1@", "12?a=b", "1,h",
        ],
    );
    let password = format!("{FRONT}{inside}{BACK}");
    let password = match octets.octet() % 8 {
        0..3 => utf8_percent_encode(&password, NON_ALPHANUMERIC).to_string(),
        3 => format!("{inside}{password}"),
        // What stands before the first separator can look like a port.
        4 => format!("12{inside}{password}"),
        _ => password,
    };
    let host = text(
        &mut octets,
        &[
            "localhost",
            "example.org:5672",
            "[::1]:1",
            "a,b:2",
            "",
            "10.0.0.1",
        ],
    );
    let after = text(
        &mut octets,
        &[
            "",
            "/",
            "/0",
            "/main/2",
            "/%2f",
            "?heartbeat=5",
            "/v?allow_plaintext=true",
            "?x=y",
            "#f",
        ],
    );
    let colon = match octets.octet() {
        255 => "",
        _ => ":",
    };
    let url = format!("{scheme}{user}{colon}{password}@{host}{after}");
    // Then a part of the password is the scheme, for all that anybody can tell.
    if url
        .split_once("://")
        .is_some_and(|(s, _)| s.contains(FRONT))
    {
        return;
    }
    let mut options = ConnectOptions::default();
    options.allow_plaintext = octets.octet() & 1 == 1;

    // A server may repeat the password, but no part of it.
    let login = format!("{user}{colon}{password}");
    let (_, repeated) = login.split_once(':').unwrap_or_default();
    let repeated = percent_decode_str(repeated).decode_utf8_lossy();
    let said = format!("WRONGPASS {repeated} is not it");
    shows_nothing(amqp::address(&url, &options), &url);
    shows_nothing(redis::address(&url, &options, &said), &url);
    let connect = Connect::new(&*url).store(&*url).name("fuzz");
    assert_hidden(&format!("{connect:?} {connect:#?}"), &url);
    refused(connect, &url);
}

fn text(octets: &mut Octets<'_>, usual: &[&str]) -> String {
    match octets.octet() {
        192.. => octets.text(),
        n => usual[usize::from(n) % usual.len()].to_owned(),
    }
}

fn shows_nothing(outcome: longshore_core::Result<Vec<String>>, url: &str) {
    match outcome {
        Ok(shown) => shown.iter().for_each(|shown| assert_hidden(shown, url)),
        Err(error) => assert_error(&error, url),
    }
}

fn assert_error(error: &(dyn Error + 'static), url: &str) {
    let mut told = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let _ = write!(told, "{error} {error:?} {error:#?} ");
        next = error.source();
    }
    assert_hidden(&told, url);
}

/// Opens what cannot be opened, so that nothing is connected to.
fn refused(connect: Connect, url: &str) {
    let options = ConnectOptions::default();
    let known = ["amqp", "redis", "memory"]
        .iter()
        .any(|known| url.starts_with(known));
    let fails = amqp::address(url, &options).is_err() && redis::address(url, &options, "").is_err();
    if known && !fails || url.starts_with("memory") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let opened = runtime.expect("a runtime").block_on(connect.open());
    assert_error(&opened.expect_err("refused"), url);
}

fn assert_hidden(shown: &str, url: &str) {
    for part in [FRONT, BACK] {
        assert!(!shown.contains(part), "{url} shows {shown}");
    }
}
