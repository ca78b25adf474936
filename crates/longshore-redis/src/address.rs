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
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: i64,
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
        let far = hosts.iter().any(|host| !host.is_loopback());
        if password.is_some() && !tls && far && !options.allow_plaintext {
            return Err(Error::new(
                ErrorKind::Invalid,
                "credentials would cross the network unencrypted: use rediss:// or set allow_plaintext",
            ));
        }
        Ok(Self {
            kind,
            hosts,
            tls,
            username,
            password,
            db,
        })
    }

    /// `text` without the credentials, should they occur in it.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if let Some(password) = self.password.as_deref().filter(|p| !p.is_empty()) {
            text = text.replace(password, "***");
        }
        text
    }
}

impl Host {
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
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if name.is_empty() || !name.chars().all(known) {
        return Err(wrong());
    }
    Ok(Host {
        name: name.to_owned(),
        port,
    })
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
        assert_eq!(single.password.as_deref(), Some("p@ss/"));
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
