//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file, counted from line 1.
    File {
        /// As it was named to the program.
        path: PathBuf,
        /// Line of the key.
        line: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// The command line: the argument as the user typed it.
    CommandLine(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::CommandLine(argument) => f.write_str(argument),
        }
    }
}

/// A configuration that cannot be used. Every message names the place and, where one is near, the word meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file named by the user, or an existing one, cannot be read.
    #[error("cannot read the configuration `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// The line.
        origin: Origin,
        /// The parser's words.
        message: String,
    },
    /// No such key.
    #[error("{origin}: unknown key `{key}`{}", meant(hint))]
    UnknownKey {
        /// Where it was said.
        origin: Origin,
        /// Full name.
        key: String,
        /// The known key nearest to it.
        hint: Option<String>,
    },
    /// A value of another type than the key's.
    #[error("{origin}: `{key}` must be {expected}, not {found}{}", meant(hint))]
    WrongType {
        /// Where it was said.
        origin: Origin,
        /// Full name.
        key: String,
        /// What the key accepts.
        expected: Box<str>,
        /// What was said.
        found: Box<str>,
        /// The accepted word nearest to it.
        hint: Option<Box<str>>,
    },
    /// The type is right, the value makes no sense.
    #[error("{origin}: `{key}` {reason}")]
    Invalid {
        /// Where it was said.
        origin: Origin,
        /// Full name.
        key: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// An argument that is not `KEY=VALUE`.
    #[error("{argument}: write it as KEY=VALUE, for example `--set training.lr=3e-4`")]
    NoValue {
        /// As typed.
        argument: String,
    },
    /// A variable that looks like a configuration key but is none.
    #[error(
        "environment {variable}: keys are written with two underscores between their parts{}",
        meant(hint)
    )]
    Variable {
        /// Its name.
        variable: String,
        /// The variable probably meant.
        hint: Option<String>,
    },
}

fn meant(hint: &Option<impl fmt::Display>) -> String {
    hint.as_ref().map_or(String::new(), |hint| format!("; did you mean `{hint}`?"))
}
