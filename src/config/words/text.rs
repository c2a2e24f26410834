//! Names, paths and references to secrets.

use std::path::PathBuf;

use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail};
use crate::config::model::LogPath;
use crate::config::node::{Node, Value};
use crate::config::report::Report;

/// Longest name of a site, route or origin: names become labels of metrics.
const LONGEST_LABEL: usize = 128;

/// A path of a file; a relative one starts at the configuration file's folder.
#[derive(Clone, Debug)]
pub(in crate::config) struct FilePath(pub PathBuf);

impl FromText for FilePath {
    const KIND: Kind = Kind { name: "path of a file", expected: "a path", pattern: "^.+$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "" => Err(Bad::Because("the path is empty".to_owned())),
            _ if text.contains('\0') => Err(Bad::Form),
            _ => Ok(FilePath(PathBuf::from(text))),
        }
    }
}

/// A path of a folder; a relative one starts at the configuration file's folder.
#[derive(Clone, Debug)]
pub(in crate::config) struct FolderPath(pub PathBuf);

impl FromText for FolderPath {
    const KIND: Kind = Kind { name: "path of a folder", ..FilePath::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        FilePath::from_text(text).map(|path| FolderPath(path.0))
    }
}

/// Where the access log goes.
#[derive(Clone, Debug)]
pub(in crate::config) struct LogTarget(pub LogPath);

impl FromText for LogTarget {
    const KIND: Kind = Kind { name: "`stdout` or path of a file", expected: "stdout or a path", ..FilePath::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "stdout" => Ok(LogTarget(LogPath::Stdout)),
            _ => FilePath::from_text(text).map(|path| LogTarget(LogPath::File(path.0))),
        }
    }
}

/// Where a secret is to be found. The secret itself never stands in the file.
#[derive(Clone, Debug)]
pub(in crate::config) enum SecretRef {
    Env(String),
    File(PathBuf),
}

impl SecretRef {
    const KIND: Kind = Kind {
        name: "`env:NAME` or `file:PATH`",
        expected: "a secret's reference, env:NAME or file:PATH",
        pattern: "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$",
        numbers: false,
    };
}

/// Not by way of [`FromText`]: a secret that was written here by mistake must not be printed.
impl Decode for SecretRef {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let place = trail.place(node.mark);
        if let Value::Text(text) = &node.value {
            if let Some(name) = text.strip_prefix("env:") {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit()) {
                    return Some(SecretRef::Env(name.to_owned()));
                }
                report.error(&place, "expected the name of an environment variable after env:");
                return None;
            }
            if let Some(path) = text.strip_prefix("file:") {
                if !path.is_empty() && !path.contains('\0') {
                    return Some(SecretRef::File(PathBuf::from(path)));
                }
                report.error(&place, "expected a path after file:");
                return None;
            }
        }
        report.error(&place, "expected a secret's reference, env:NAME or file:PATH, never the secret itself");
        None
    }

    fn shape() -> Shape {
        Shape::Text(const { &SecretRef::KIND })
    }
}

/// How logs and metrics call something.
#[derive(Clone, Debug)]
pub(in crate::config) struct Label(pub String);

impl FromText for Label {
    const KIND: Kind = Kind { name: "name", expected: "a name", pattern: "^.{1,128}$", numbers: false };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "" => Err(Bad::Because("the name is empty".to_owned())),
            _ if text.len() > LONGEST_LABEL => {
                Err(Bad::Because(format!("the name is longer than {LONGEST_LABEL} bytes")))
            }
            _ if text.contains(char::is_control) => Err(Bad::Because("a name holds no control characters".to_owned())),
            _ => Ok(Label(text.to_owned())),
        }
    }
}

/// The name of an origin.
#[derive(Clone, Debug)]
pub(in crate::config) struct OriginName(pub String);

impl FromText for OriginName {
    const KIND: Kind = Kind {
        name: "name of an origin",
        expected: "an origin's name of letters, digits, `-`, `_` and `.`",
        pattern: "^[A-Za-z0-9._-]{1,128}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match text {
            "" => Err(Bad::Form),
            _ if text.len() > LONGEST_LABEL || !text.chars().all(fits) => Err(Bad::Form),
            _ => Ok(OriginName(text.to_owned())),
        }
    }
}
