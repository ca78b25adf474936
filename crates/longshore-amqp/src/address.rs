//! Where the broker is: `amqp://user:password@host:5672,other:5673/vhost?heartbeat=5`.

use std::{fmt, net::IpAddr, time::Duration};

use longshore_core::{Error, ErrorKind, Result, printable};
use percent_encoding::percent_decode_str;

use crate::guard::{Credentials, Secret};

/// One host of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl Host {
    /// Whether what is sent there never leaves this machine.
    fn is_loopback(&self) -> bool {
        let name = self.name.to_ascii_lowercase();
        match name.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// A parsed address. `Debug` and `Display` leave the credentials out.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) tls: bool,
    pub(crate) hosts: Vec<Host>,
    pub(crate) credentials: Credentials,
    pub(crate) vhost: String,
    pub(crate) heartbeat: Duration,
}

/// What the query of an address may say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query {
    pub(crate) heartbeat: Duration,
    pub(crate) allow_plaintext: bool,
}

const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;
const LONGEST_HEARTBEAT: u64 = 300;

impl Address {
    /// Reads an address. `defaults` holds where the query says nothing. `amqp` and `amqps`, several hosts separated by commas, user name,
    /// password and vhost percent-encoded; the query may hold `heartbeat` in seconds (1 to 300)
    /// and `allow_plaintext=true`, nothing else. No path, or `/`, is the vhost `/`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], naming the part that is wrong and never the credentials.
    pub(crate) fn parse(text: &str, defaults: Query) -> Result<Self> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("it must begin with amqp:// or amqps://"))?;
        let tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(invalid("the scheme must be amqp or amqps")),
        };
        if rest.contains('#') {
            return Err(invalid("it must have no #fragment; write # as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Then what stands there can be the rest of a password, and must not be shown.
        if path.contains('@') || query.contains('@') {
            return Err(invalid(
                "it has an @ behind its hosts; in a password / is written %2F and ? is written %3F, \
                 in a vhost @ is written %40",
            ));
        }
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let port = if tls { TLS_PORT } else { PORT };
        let hosts = hosts
            .split(',')
            .map(|host| parse_host(host, port))
            .collect::<Result<Vec<_>>>()?;
        let vhost = match path {
            "" => "/".to_owned(),
            path if path.contains('/') => {
                return Err(invalid("the vhost must have its / written as %2F"));
            }
            path => decode(path, "vhost", 255)?,
        };
        let options = parse_query(query, defaults)?;
        if !tls && !options.allow_plaintext && !hosts.iter().all(Host::is_loopback) {
            return Err(invalid(
                "credentials would cross the network unencrypted; use amqps://, or allow \
                 plaintext (?allow_plaintext=true) where the network itself is trusted",
            ));
        }
        Ok(Self {
            tls,
            hosts,
            credentials: parse_login(login)?,
            vhost,
            heartbeat: options.heartbeat,
        })
    }
}

/// Shows what can be told: scheme, hosts and vhost.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "amqps://" } else { "amqp://" })?;
        for (n, host) in self.hosts.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{host}")?;
        }
        write!(f, "/{}", printable(&self.vhost, 64))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn invalid(why: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("the broker's address is wrong: {why}"),
    )
}

fn decode(text: &str, what: &str, longest: usize) -> Result<String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| invalid(format_args!("the {what} is no UTF-8")))?;
    if text.len() > longest || text.contains('\0') {
        return Err(invalid(format_args!(
            "the {what} must have at most {longest} bytes and no NUL"
        )));
    }
    Ok(text.into_owned())
}

fn parse_login(login: Option<&str>) -> Result<Credentials> {
    let (user, password) = match login {
        None => ("guest", "guest"),
        Some(login) => login
            .split_once(':')
            .ok_or_else(|| invalid("before the @ must stand user:password"))?,
    };
    Ok(Credentials {
        user: decode(user, "user name", 255)?,
        password: Secret(decode(password, "password", 16 * 1024)?),
    })
}

fn parse_host(text: &str, default_port: u16) -> Result<Host> {
    let wrong = || invalid("each host must be name, name:port, or [v6-address]:port");
    let (name, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (name, port) = v6.split_once(']').ok_or_else(wrong)?;
            name.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            match port {
                "" => (name, None),
                port => (name, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            }
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| wrong())?,
        None => default_port,
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if name.is_empty() || name.len() > 253 || !name.chars().all(fits) || port == 0 {
        return Err(wrong());
    }
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

fn parse_query(query: &str, mut options: Query) -> Result<Query> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("heartbeat", seconds) => {
                let seconds: u64 = seconds.parse().unwrap_or_default();
                if !(1..=LONGEST_HEARTBEAT).contains(&seconds) {
                    return Err(invalid(format_args!(
                        "heartbeat must be 1 to {LONGEST_HEARTBEAT} seconds"
                    )));
                }
                options.heartbeat = Duration::from_secs(seconds);
            }
            ("allow_plaintext", "true") => options.allow_plaintext = true,
            ("allow_plaintext", "false") => options.allow_plaintext = false,
            ("allow_plaintext", _) => {
                return Err(invalid("allow_plaintext must be true or false"));
            }
            (name, _) => {
                return Err(invalid(format_args!(
                    "\"{}\" is no option; there are heartbeat and allow_plaintext",
                    printable(name, 32)
                )));
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Query = Query {
        heartbeat: Duration::from_secs(5),
        allow_plaintext: false,
    };

    fn parsed(text: &str) -> Address {
        Address::parse(text, DEFAULTS).expect("a good address")
    }

    #[test]
    fn hosts_vhost_and_credentials_are_read_and_decoded() {
        let address =
            parsed("amqps://us%40er:p%3A%2Fw@rabbit-1,rabbit-2:5673,[::1]:1/my%2Fhost?heartbeat=9");
        assert!(address.tls);
        assert_eq!(address.credentials.user, "us@er");
        assert_eq!(address.credentials.password.0, "p:/w");
        assert_eq!(address.vhost, "my/host");
        assert_eq!(address.heartbeat, Duration::from_secs(9));
        assert_eq!(
            address.to_string(),
            "amqps://rabbit-1:5671,rabbit-2:5673,[::1]:1/my/host"
        );
    }

    #[test]
    fn defaults_are_those_of_rabbitmq() {
        for text in [
            "amqp://localhost",
            "amqp://localhost/",
            "amqp://localhost/%2F",
        ] {
            let address = parsed(text);
            assert_eq!(address.hosts[0].port, 5672);
            assert_eq!(address.vhost, "/");
            assert_eq!(address.credentials.user, "guest");
            assert_eq!(address.heartbeat, Duration::from_secs(5));
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_credentials_are_not() {
        for (text, says) in [
            ("localhost", "must begin"),
            ("redis://localhost", "scheme"),
            ("amqp://canary-u@localhost", "user:password"),
            ("amqp://canary-u:canary-p@", "host"),
            ("amqp://canary-u:canary-p@localhost:0", "host"),
            ("amqp://canary-u:canary-p@localhost:99999", "host"),
            ("amqp://canary-u:canary-p@loc alhost", "host"),
            ("amqp://canary-u:canary-p@[::1", "host"),
            ("amqp://canary-u:canary-p@localhost/a/b", "%2F"),
            (
                "amqp://canary-u:canary-p@localhost?tls_ca=/etc/x",
                "no option",
            ),
            (
                "amqp://canary-u:canary-p@localhost?heartbeat=0",
                "heartbeat",
            ),
            ("amqp://canary-u:canary-p@localhost#x", "%23"),
            // What looks like a port, and then the rest of the password.
            ("amqps://canary-u:12/canary-p@localhost", "%2F"),
            ("amqps://canary-u:12?canary-p@localhost", "%3F"),
            ("amqps://canary-u:12?canary-p=true@localhost", "%3F"),
            ("amqp://canary-u:canary-p@broker.example", "amqps://"),
            ("amqp://canary-u:canary-p@localhost,10.0.0.1", "amqps://"),
        ] {
            let error = Address::parse(text, DEFAULTS).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(says), "{text}: {shown}");
            assert!(!shown.contains("canary"), "{shown}");
        }
        let address = parsed("amqp://canary-u:canary-p@10.0.0.1?allow_plaintext=true");
        assert!(!format!("{address} {address:?}").contains("canary"));
    }

    #[test]
    fn loopback_needs_no_encryption() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "LOCALHOST"] {
            parsed(&format!("amqp://a:b@{host}"));
        }
    }
}
