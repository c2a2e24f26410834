//! Listeners, and what bounds clients.

use super::matching::FieldName;
use crate::config::certificate::LONGEST_NAME;
use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail, word};
use crate::config::model::UnknownSni;
use crate::config::node::{Node, quote};
use crate::config::report::Report;
use crate::config::units::{self, Fault};

impl Decode for UnknownSni {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &[("default", UnknownSni::Default), ("refuse", UnknownSni::Refuse)], &[])
    }

    fn shape() -> Shape {
        Shape::Words(vec!["default", "refuse"])
    }
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct ClientAuthMode {
    pub required: bool,
}

impl Decode for ClientAuthMode {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let words = [("required", true), ("optional", false)];
        word(node, trail, report, &words, &[]).map(|required| ClientAuthMode { required })
    }

    fn shape() -> Shape {
        Shape::Words(vec!["required", "optional"])
    }
}

/// Request fields that say something else than who the client is, to this cache or to origins: to take one of them from
/// clients would break requests, or change what they mean.
const TAKEN: [&str; 33] = [
    "authorization",
    "cache-control",
    "cdn-loop",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// How the names of whole families of such fields begin.
const TAKEN_FAMILIES: [&str; 5] = ["accept", "access-control-", "content-", "proxy-", "sec-"];

/// The name, in lower case, of a request field that says who the client is, and that no client may say itself.
#[derive(Clone, Debug)]
pub(in crate::config) struct ClientField(pub String);

impl FromText for ClientField {
    const KIND: Kind = Kind {
        name: "request field's name",
        expected: "a request field's name such as Client-Cert",
        ..FieldName::KIND
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let FieldName(name) = FieldName::from_text(text)?;
        if TAKEN.contains(&&*name) || TAKEN_FAMILIES.iter().any(|family| name.starts_with(family)) {
            return Err(Bad::Because(format!("{}: this field has a meaning of its own", quote(text))));
        }
        Ok(ClientField(name))
    }
}

/// A name in a certificate, as [`identities`](crate::config::certificate::identities) reads it.
#[derive(Clone, Debug)]
pub(in crate::config) struct CertificateName(pub String);

impl FromText for CertificateName {
    const KIND: Kind = Kind {
        name: "name in a certificate",
        expected: "a name in a certificate such as ops.example.com",
        pattern: "^.{1,255}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "" => Err(Bad::Because("the name is empty".to_owned())),
            _ if text.len() > LONGEST_NAME => {
                Err(Bad::Because(format!("the name is longer than {LONGEST_NAME} bytes")))
            }
            _ if text.contains(char::is_control) => Err(Bad::Because("a name holds no control characters".to_owned())),
            _ => Ok(CertificateName(text.to_owned())),
        }
    }
}

/// How fast something must go at least: bytes a second, above 0.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct MinRate(pub u64);

impl FromText for MinRate {
    const KIND: Kind = Kind {
        name: "size and `/s`",
        expected: "a rate such as 500B/s or 1KiB/s",
        pattern: r"^[0-9]+(B|[KMGT]iB|[kKMGT]B)/s$",
        numbers: true,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        let because = |what: &str| Err(Bad::Because(format!("the rate {} {what}", quote(text))));
        let size = text.strip_suffix("/s").unwrap_or(text);
        match units::size(size) {
            Ok(_) if size == text => because(&format!("needs its time, as in {text}/s")),
            Ok(0) => because("is 0: leave the key out for any rate"),
            Ok(bytes) => Ok(MinRate(bytes)),
            Err(Fault::NoUnit) => because("needs a unit, as in 500B/s or 1KiB/s"),
            Err(Fault::TooLarge) => because("is more than 64 bits hold"),
            Err(Fault::Form) => Err(Bad::Form),
        }
    }
}
