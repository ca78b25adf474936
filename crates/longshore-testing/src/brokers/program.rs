//! The command line that starts a server, where it lies, and which folder it sees as its root.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::error::{Error, ErrorKind};
use super::kind::BrokerKind;

/// Debian's `rabbitmq-server` on PATH switches to the system's user and data; the real one is here.
const RABBITMQ_FOLDER: &str = "/usr/lib/rabbitmq/bin";

/// A server's command line, perhaps behind a `chroot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    words: Vec<String>,
    root: Option<PathBuf>,
}

/// Whether [`Broker::start`](super::Broker::start) would find a server of this kind.
///
/// # Errors
/// [`ErrorKind::NotInstalled`] with a text that says what to install.
pub fn installed(kind: BrokerKind) -> Result<(), Error> {
    Program::locate(kind).map(drop)
}

impl Program {
    pub(crate) fn locate(kind: BrokerKind) -> Result<Self, Error> {
        let (variable, names): (_, &[&str]) = match kind {
            BrokerKind::RabbitMq => ("LONGSHORE_RABBITMQ_SERVER", &["rabbitmq-server"]),
            BrokerKind::Redis => ("LONGSHORE_REDIS_SERVER", &["redis-server", "valkey-server"]),
        };
        if let Ok(line) = env::var(variable)
            && let Some(program) = Self::parse(&line)
        {
            return Ok(program);
        }
        let mut folders = Vec::new();
        if kind == BrokerKind::RabbitMq {
            folders.push(PathBuf::from(RABBITMQ_FOLDER));
        }
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        names
            .iter()
            .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
            .find(|path| path.is_file())
            .and_then(|path| Self::parse(&path.to_string_lossy()))
            .ok_or_else(|| {
                let name = names[0];
                Error::new(
                    ErrorKind::NotInstalled,
                    format!("{name} is not installed: install the package `{name}`, or set {variable} to a command that starts it"),
                )
            })
    }

    /// `None` for a blank line.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let first = words.first()?;
        let root = (Path::new(first).file_name() == Some(OsStr::new("chroot")))
            .then(|| {
                words[1..]
                    .iter()
                    .find(|word| !word.starts_with('-'))
                    .map(PathBuf::from)
            })
            .flatten();
        Some(Self { words, root })
    }

    /// The command line followed by `arguments`.
    pub(crate) fn with(&self, arguments: &[String]) -> Vec<String> {
        [self.words.as_slice(), arguments].concat()
    }

    /// Another program of the same installation: `rabbitmqctl` beside `rabbitmq-server`, or one that the
    /// search path finds in the same root.
    pub(crate) fn companion(
        &self,
        server: &str,
        name: &str,
        beside: bool,
    ) -> Result<Vec<String>, Error> {
        let at = self
            .words
            .iter()
            .position(|word| Path::new(word).file_name() == Some(OsStr::new(server)))
            .ok_or_else(|| {
                let line = self.words.join(" ");
                Error::new(ErrorKind::NotConfigured, format!("the server command `{line}` does not name {server}, so {name} cannot be found"))
            })?;
        let path = if beside {
            Path::new(&self.words[at]).with_file_name(name)
        } else {
            PathBuf::from(name)
        };
        let mut words = self.words[..at].to_vec();
        words.push(path.to_string_lossy().into_owned());
        Ok(words)
    }

    /// The new root folder where the command is a `chroot`.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// How the server sees a path of ours.
    pub(crate) fn sees(&self, path: &Path) -> Result<String, Error> {
        let Some(root) = &self.root else {
            return Ok(path.to_string_lossy().into_owned());
        };
        let inside = path.strip_prefix(root).map_err(|_| {
            Error::new(
                ErrorKind::NotConfigured,
                format!("{} is outside {}, which the server sees as its root: set LONGSHORE_BROKER_DATA to a folder inside it", path.display(), root.display()),
            )
        })?;
        Ok(Path::new("/").join(inside).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chroot_command_hands_out_paths_and_companions_of_its_root() {
        let program = Program::parse("chroot /opt/new /usr/lib/rabbitmq/bin/rabbitmq-server")
            .expect("not blank");
        assert_eq!(program.root(), Some(Path::new("/opt/new")));
        assert_eq!(
            program
                .sees(Path::new("/opt/new/var/tmp/x"))
                .expect("inside"),
            "/var/tmp/x"
        );
        let control = program
            .companion("rabbitmq-server", "rabbitmqctl", true)
            .expect("beside the server");
        assert_eq!(
            control,
            ["chroot", "/opt/new", "/usr/lib/rabbitmq/bin/rabbitmqctl"]
        );
        let epmd = program
            .companion("rabbitmq-server", "epmd", false)
            .expect("by search path");
        assert_eq!(epmd, ["chroot", "/opt/new", "epmd"]);
    }

    #[test]
    fn a_data_folder_outside_the_root_is_refused_with_the_variable_to_set() {
        let program = Program::parse("chroot /opt/new redis-server").expect("not blank");
        let error = program.sees(Path::new("/srv/x")).expect_err("outside");
        assert!(
            error.to_string().contains("LONGSHORE_BROKER_DATA"),
            "{error}"
        );
    }

    #[test]
    fn a_plain_command_keeps_its_arguments_and_sees_our_paths() {
        let program = Program::parse("nice -n 5 redis-server").expect("not blank");
        assert_eq!(
            program.with(&["x.conf".to_owned()]),
            ["nice", "-n", "5", "redis-server", "x.conf"]
        );
        assert_eq!(
            program.sees(Path::new("/srv/x")).expect("same root"),
            "/srv/x"
        );
        assert!(Program::parse("  ").is_none());
    }
}
