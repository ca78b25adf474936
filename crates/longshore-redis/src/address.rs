//! Redis URLs.

use std::fmt;

use longshore_core::{ConnectOptions, Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;

/// What a URL says: which servers, and how to log in. Prints no credentials.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) kind: Kind,
    pub(crate) hosts: Vec<Host>,
    pub(crate) tls: bool,
    pub(crate) db: i64,
    login: Login,
    allow_plaintext: bool,
}

/// How to log in. Reached through [`Address::login_at`] alone, which looks where it will go.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

/// How the servers of a URL belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server.
    Single,
    /// Some nodes of a cluster.
    Cluster,
    /// The sentinels that know the master of this name.
    Sentinel(String),
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `redis[s]://`, `redis[s]+cluster://` and `redis[s]+sentinel://` URLs.
    pub(crate) fn parse(url: &str, options: &ConnectOptions) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            invalid("a Redis URL begins with redis://, rediss://, redis+cluster:// or redis+sentinel://")
        })?;
        let (tls, family) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", family) => (false, family),
            ("rediss", family) => (true, family),
            _ => {
                return Err(invalid(
                    "the scheme of a Redis URL is redis or rediss, with +cluster or +sentinel",
                ));
            }
        };
        if rest.contains(['?', '#']) {
            return Err(invalid(
                "a Redis URL has no query and no fragment: certificates and time-outs are set in the \
                 options, and a '?' or '#' in a password is written %3F or %23",
            ));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Then what stands there can be the rest of a password, and must not be shown.
        if path.contains('@') {
            return Err(invalid(
                "a Redis URL has no @ behind its servers: a '/' in a password is written %2F, an '@' in \
                 the name of a master %40",
            ));
        }
        let (login, servers) = match authority.rsplit_once('@') {
            Some((login, servers)) => (Some(login), servers),
            None => (None, authority),
        };
        let (username, password) = match login.map(|l| l.split_once(':').unwrap_or((l, ""))) {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => (None, None),
        };
        let default_port = if family == "sentinel" { 26379 } else { 6379 };
        let hosts = servers
            .split(',')
            .map(|server| host(server, default_port))
            .collect::<Result<Vec<_>>>()?;
        let (kind, db) = match family {
            "" => (Kind::Single, path),
            "cluster" => (Kind::Cluster, path),
            "sentinel" => {
                let (master, db) = path.split_once('/').unwrap_or((path, ""));
                let master = decoded(master)?.ok_or_else(|| {
                    invalid(
                        "a sentinel URL names the master: redis+sentinel://host:port/master-name",
                    )
                })?;
                (Kind::Sentinel(master), db)
            }
            _ => {
                return Err(invalid(
                    "only +cluster and +sentinel can follow redis or rediss in a URL",
                ));
            }
        };
        let db: i64 =
            match db {
                "" => 0,
                db => db.parse().ok().filter(|db| *db >= 0).ok_or_else(|| {
                    invalid("the path of a Redis URL is the number of a database")
                })?,
            };
        if kind == Kind::Cluster && db != 0 {
            return Err(invalid("a Redis Cluster has only database 0"));
        }
        if kind == Kind::Single && hosts.len() != 1 {
            return Err(invalid(
                "several hosts need redis+cluster:// or redis+sentinel://",
            ));
        }
        let address = Self {
            kind,
            hosts,
            tls,
            db,
            login: Login { username, password },
            allow_plaintext: options.allow_plaintext,
        };
        for host in &address.hosts {
            address.login_at(host)?;
        }
        Ok(address)
    }

    /// The credentials for this server, which a sentinel or a cluster may have named and no
    /// operator has seen.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where a password would cross the network unencrypted.
    pub(crate) fn login_at(&self, host: &Host) -> Result<&Login> {
        let safe = self.tls || self.allow_plaintext || host.is_loopback();
        if self.login.password.is_some() && !safe {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "credentials would cross the network to {host} unencrypted: use TLS (rediss) or set allow_plaintext"
                ),
            ));
        }
        Ok(&self.login)
    }

    /// `text` without the credentials, should they occur in it.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(password) = self.login.password.as_deref().filter(|p| !p.is_empty()) {
            text = text.replace(password, "***");
        }
        text
    }
}

impl Host {
    /// A server by name or address; `None` for what can be neither.
    pub(crate) fn new(name: impl Into<String>, port: u16) -> Option<Self> {
        let name = name.into();
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        let fits = !name.is_empty() && name.len() <= 255 && name.chars().all(known);
        fits.then_some(Self { name, port })
    }

    fn is_loopback(&self) -> bool {
        self.name.eq_ignore_ascii_case("localhost")
            || self
                .name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("kind", &self.kind)
            .field("hosts", &self.hosts)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

fn decoded(text: &str) -> Result<Option<String>> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| {
        invalid("user, password and names in a Redis URL are UTF-8, percent-encoded")
    })?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

fn host(server: &str, default_port: u16) -> Result<Host> {
    let wrong = || invalid("a server in a Redis URL is host, host:port or [ipv6]:port");
    let (name, port) = if let Some(rest) = server.strip_prefix('[') {
        let (name, port) = rest.split_once(']').ok_or_else(wrong)?;
        (name, port.strip_prefix(':'))
    } else {
        match server.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (server, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| wrong())?,
        None => default_port,
    };
    Host::new(name, port).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address> {
        Address::parse(url, &ConnectOptions::default())
    }

    #[test]
    fn each_kind_of_url_is_read() {
        let single = parse("redis://:p%40ss%2F@localhost/3").expect("single");
        assert_eq!(
            (single.kind, single.db, single.tls),
            (Kind::Single, 3, false)
        );
        assert_eq!(single.login.password.as_deref(), Some("p@ss/"));
        assert_eq!(
            single.hosts,
            [Host {
                name: "localhost".into(),
                port: 6379
            }]
        );

        let cluster = parse("rediss+cluster://u:p@a:1,[::1]:2,c").expect("cluster");
        assert_eq!((cluster.kind, cluster.tls), (Kind::Cluster, true));
        assert_eq!(
            cluster
                .hosts
                .iter()
                .map(Host::to_string)
                .collect::<Vec<_>>(),
            ["a:1", "::1:2", "c:6379"]
        );

        let sentinel = parse("redis+sentinel://a,b:5/main/2").expect("sentinel");
        assert_eq!(
            (sentinel.kind, sentinel.db),
            (Kind::Sentinel("main".into()), 2)
        );
        assert_eq!(sentinel.hosts[0].port, 26379);
    }

    #[test]
    fn no_server_but_this_machine_gets_the_password_without_tls() {
        let host = |name: &str| Host::new(name, 6379).expect("a host");
        let plain = parse("redis+sentinel://:canary@localhost/main").expect("sentinel");
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(plain.login_at(&host(name)).is_ok(), "{name}");
        }
        for name in ["10.0.0.1", "example.org", "0.0.0.0", "2001:db8::1"] {
            let error = plain.login_at(&host(name)).err().expect(name);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
        }
        let far = host("10.0.0.1");
        let open = parse("redis+cluster://localhost").expect("no password");
        let tls = parse("rediss+cluster://:canary@localhost").expect("tls");
        let mut options = ConnectOptions::default();
        options.allow_plaintext = true;
        let allowed = Address::parse("redis+cluster://:canary@localhost", &options);
        for address in [open, tls, allowed.expect("allowed")] {
            assert!(address.login_at(&far).is_ok(), "{address:?}");
        }
        for name in ["", "a\nb", "a b"] {
            assert_eq!(Host::new(name, 1), None, "{name:?}");
        }
    }

    #[test]
    fn mistakes_are_refused_without_showing_the_password() {
        for url in [
            "localhost",
            "http://localhost",
            "redis://a,b",
            "redis://",
            "redis://h:port",
            "redis://:canary@h?ssl=no",
            "redis://:canary@localhost/x",
            "redis+cluster://:canary@localhost/1",
            "redis+sentinel://localhost",
            "redis://:canary@example.org",
            "redis://:canary@10.0.0.1",
            // What looks like a port, and then the rest of the password.
            "rediss+sentinel://user:12/canary@localhost/main",
        ] {
            let error = parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let address = parse("rediss://user:canary@example.org").expect("tls");
        assert!(!format!("{address:?}").contains("canary"));
        assert_eq!(address.scrub("AUTH canary"), "AUTH ***");
    }
}
