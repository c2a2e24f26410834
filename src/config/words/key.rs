//! How URLs are signed.

use std::time::Duration;

use super::quantity::between;
use super::text::Label;
use crate::config::decode::{Bad, Decode, FromText, Kind, Shape, Trail, word};
use crate::config::model::{AkamaiAlgorithm, Piece};
use crate::config::node::{Node, quote};
use crate::config::report::{Report, suggest};

/// A format of signed URLs, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum UrlFormatWord {
    Foreland,
    SecureLink,
    Akamai,
    Cloudflare,
    CloudFront,
    Jwt,
}

impl UrlFormatWord {
    pub const ALL: [UrlFormatWord; 6] = [
        UrlFormatWord::Foreland,
        UrlFormatWord::SecureLink,
        UrlFormatWord::Akamai,
        UrlFormatWord::Cloudflare,
        UrlFormatWord::CloudFront,
        UrlFormatWord::Jwt,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            UrlFormatWord::Foreland => "foreland",
            UrlFormatWord::SecureLink => "secure-link",
            UrlFormatWord::Akamai => "akamai",
            UrlFormatWord::Cloudflare => "cloudflare",
            UrlFormatWord::CloudFront => "cloudfront",
            UrlFormatWord::Jwt => "jwt",
        }
    }
}

impl Decode for UrlFormatWord {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        word(node, trail, report, &UrlFormatWord::ALL.map(|format| (format.as_str(), format)), &[])
    }

    fn shape() -> Shape {
        Shape::Words(UrlFormatWord::ALL.map(UrlFormatWord::as_str).to_vec())
    }
}

/// A hash of Akamai's tokens.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct AkamaiWord(pub AkamaiAlgorithm);

impl AkamaiWord {
    const ALL: [AkamaiAlgorithm; 3] = [AkamaiAlgorithm::Sha256, AkamaiAlgorithm::Sha1, AkamaiAlgorithm::Md5];

    pub fn as_str(algorithm: AkamaiAlgorithm) -> &'static str {
        match algorithm {
            AkamaiAlgorithm::Sha256 => "sha256",
            AkamaiAlgorithm::Sha1 => "sha1",
            AkamaiAlgorithm::Md5 => "md5",
        }
    }
}

impl Decode for AkamaiWord {
    fn decode(node: &Node, trail: &Trail<'_>, report: &mut Report) -> Option<Self> {
        let words = AkamaiWord::ALL.map(|algorithm| (AkamaiWord::as_str(algorithm), AkamaiWord(algorithm)));
        word(node, trail, report, &words, &[])
    }

    fn shape() -> Shape {
        Shape::Words(AkamaiWord::ALL.map(AkamaiWord::as_str).to_vec())
    }
}

/// The name of a key in `keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct KeyName(pub String);

impl FromText for KeyName {
    const KIND: Kind = Kind {
        name: "name of a key",
        expected: "a key's name of letters, digits, `-`, `_` and `.`",
        pattern: "^[A-Za-z0-9._-]{1,128}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match text {
            "off" => Err(Bad::Because("`off` stands alone: it asks for no signature, and names no key".to_owned())),
            _ if plain(text, 128) => Ok(KeyName(text.to_owned())),
            _ => Err(Bad::Form),
        }
    }
}

/// Where a token is: the name of a query parameter, of a cookie and of a request field at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct TokenName(pub String);

impl FromText for TokenName {
    const KIND: Kind = Kind {
        name: "name of letters, digits, `-`, `_` and `.`",
        expected: "a name of at most 64 letters, digits, `-`, `_` and `.`",
        pattern: "^[A-Za-z0-9._-]{1,64}$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        if plain(text, 64) { Ok(TokenName(text.to_owned())) } else { Err(Bad::Form) }
    }
}

fn plain(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// What tokens call a public key: `kid`, or the id of a key pair.
#[derive(Clone, Debug)]
pub(in crate::config) struct PublicKeyId(pub String);

impl FromText for PublicKeyId {
    const KIND: Kind = Kind { name: "id of a key", expected: "the id of a key", ..Label::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        Label::from_text(text).map(|label| PublicKeyId(label.0))
    }
}

/// What stands between the parts of Akamai's tokens.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Delimiter(pub char);

impl FromText for Delimiter {
    const KIND: Kind = Kind {
        name: "one of ``~!$()*+,;:@|^-_.``",
        expected: "a delimiter of one character, such as ~ or !",
        pattern: r"^[~!$()*+,;:@|^_.-]$",
        numbers: false,
    };

    /// What has a meaning in queries and cookies, or in a token's fields, delimits nothing.
    fn from_text(text: &str) -> Result<Self, Bad> {
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) if "~!$()*+,;:@|^-_.".contains(c) => Ok(Delimiter(c)),
            _ => Err(Bad::Form),
        }
    }
}

/// A time of whole seconds, as tokens and fields count it, above 0.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct WholeSeconds(pub Duration);

impl FromText for WholeSeconds {
    const KIND: Kind = Kind { name: "duration of whole seconds, above 0", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match WholeSecondsOrNone::from_text(text)?.0 {
            Duration::ZERO => Err(Bad::Because(format!("must be longer than 0, found {}", quote(text)))),
            time => Ok(WholeSeconds(time)),
        }
    }
}

/// A time of whole seconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct WholeSecondsOrNone(pub Duration);

impl FromText for WholeSecondsOrNone {
    const KIND: Kind = Kind { name: "duration of whole seconds", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        match Duration::from_text(text)? {
            time if time.subsec_nanos() > 0 => {
                Err(Bad::Because(format!("this is counted in whole seconds, found {}", quote(text))))
            }
            time => Ok(WholeSecondsOrNone(time)),
        }
    }
}

/// How far two clocks may be apart.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Skew(pub Duration);

impl FromText for Skew {
    const KIND: Kind = Kind { name: "duration of whole seconds, `0s` to `1h`", ..Duration::KIND };

    fn from_text(text: &str) -> Result<Self, Bad> {
        WholeSecondsOrNone::from_text(text)?;
        between(text, Duration::ZERO, Duration::from_secs(3600)).map(Skew)
    }
}

/// nginx's expression of `secure_link_md5`, with `$secret`.
#[derive(Clone, Debug)]
pub(in crate::config) struct Expression(pub Vec<Piece>);

/// Beyond, it is no expression but something else.
const LONGEST_EXPRESSION: usize = 1024;

const VARIABLES: [&str; 6] = ["secure_link_expires", "uri", "host", "scheme", "remote_addr", "secret"];

impl FromText for Expression {
    const KIND: Kind = Kind {
        name: "nginx's expression",
        expected: "an expression such as $secure_link_expires$uri$remote_addr $secret",
        pattern: r"^.*\$\{?secret.*$",
        numbers: false,
    };

    fn from_text(text: &str) -> Result<Self, Bad> {
        if text.len() > LONGEST_EXPRESSION {
            return Err(Bad::Because(format!("the expression is longer than {LONGEST_EXPRESSION} bytes")));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            push(&mut pieces, before);
            let (name, after) = name(after)?;
            pieces.push(variable(name)?);
            rest = after;
        }
        push(&mut pieces, rest);
        if !pieces.contains(&Piece::Secret) {
            let message = "without `$secret`, anybody could sign: the secret itself is not written into the expression";
            return Err(Bad::Because(message.to_owned()));
        }
        Ok(Expression(pieces))
    }
}

fn push(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// The variable's name that a text begins with, plain or in braces, and what follows.
fn name(text: &str) -> Result<(&str, &str), Bad> {
    let word = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (name, after) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or_else(|| Bad::Because("a `${` is not closed".to_owned()))?,
        None => text.split_at(word(text)),
    };
    match name.is_empty() || word(name) != name.len() {
        true => Err(Bad::Because("a `$` is not followed by a variable's name".to_owned())),
        false => Ok((name, after)),
    }
}

fn variable(name: &str) -> Result<Piece, Bad> {
    Ok(match name {
        "secure_link_expires" => Piece::Expires,
        "uri" => Piece::Uri,
        "host" => Piece::Host,
        "scheme" => Piece::Scheme,
        "remote_addr" => Piece::RemoteAddress,
        "secret" => Piece::Secret,
        "request_uri" => {
            let message = "`$request_uri` has the signature in it, so that nothing can be signed; did you mean `$uri`?";
            return Err(Bad::Because(message.to_owned()));
        }
        _ => match name.split_once('_') {
            Some(("arg", of)) if !of.is_empty() => Piece::Argument(of.to_owned()),
            Some(("http", of)) if !of.is_empty() => Piece::Header(of.to_ascii_lowercase().replace('_', "-")),
            Some(("cookie", of)) if !of.is_empty() => Piece::Cookie(of.to_owned()),
            _ => return Err(Bad::Because(format!("unknown variable `${name}`{}", suggest(name, &VARIABLES)))),
        },
    })
}

/// An expression as it is read.
pub(in crate::config) fn show_expression(pieces: &[Piece]) -> String {
    let mut text = String::new();
    for (i, piece) in pieces.iter().enumerate() {
        let name = match piece {
            Piece::Text(literal) => {
                text.push_str(literal);
                continue;
            }
            Piece::Secret => "secret".to_owned(),
            Piece::Expires => "secure_link_expires".to_owned(),
            Piece::Uri => "uri".to_owned(),
            Piece::Host => "host".to_owned(),
            Piece::Scheme => "scheme".to_owned(),
            Piece::RemoteAddress => "remote_addr".to_owned(),
            Piece::Argument(name) => format!("arg_{name}"),
            Piece::Header(name) => format!("http_{}", name.replace('-', "_")),
            Piece::Cookie(name) => format!("cookie_{name}"),
        };
        // In braces where the text behind would be read as part of the name.
        let runs_on = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match pieces.get(i + 1) {
            Some(Piece::Text(next)) if next.starts_with(runs_on) => text.push_str(&format!("${{{name}}}")),
            _ => text.push_str(&format!("${name}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &str) -> Result<Vec<Piece>, String> {
        Expression::from_text(text).map(|expression| expression.0).map_err(|bad| match bad {
            Bad::Form => "form".to_owned(),
            Bad::Because(why) => why,
        })
    }

    #[test]
    fn expressions() {
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            pieces("$secure_link_expires$uri$remote_addr $secret"),
            Ok(vec![Piece::Expires, Piece::Uri, Piece::RemoteAddress, text(" "), Piece::Secret])
        );
        assert_eq!(
            pieces("${uri}x$arg_st|$http_X_Api_Key$cookie_Id$scheme://$host${secret}"),
            Ok(vec![
                Piece::Uri,
                text("x"),
                Piece::Argument("st".to_owned()),
                text("|"),
                Piece::Header("x-api-key".to_owned()),
                Piece::Cookie("Id".to_owned()),
                Piece::Scheme,
                text("://"),
                Piece::Host,
                Piece::Secret
            ])
        );
        for (text, why) in [
            ("$uri secret", "without `$secret`"),
            ("$secret$uir", "unknown variable `$uir`; did you mean `uri`?"),
            ("$secret$request_uri", "did you mean `$uri`?"),
            ("$secret$", "not followed"),
            ("$secret$$uri", "not followed"),
            ("$secret${uri", "not closed"),
            ("$secret${}", "not followed"),
            ("$secret${a b}", "not followed"),
            ("$secret$arg_", "unknown variable"),
        ] {
            let said = pieces(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    proptest! {
        /// What is shown is read as the same pieces.
        #[test]
        fn round_trip(text in "(\\$uri|\\$\\{host\\}|\\$arg_a1|\\$http_x_y|\\$secure_link_expires|[a-z_ |:]){0,12}\\$secret[ a-z]{0,3}") {
            if let Ok(read) = pieces(&text) {
                prop_assert_eq!(pieces(&show_expression(&read)), Ok(read));
            }
        }

        #[test]
        fn never_panics(text in "(\\$|\\{|\\}|\\PC){0,30}") {
            let _ = pieces(&text);
        }
    }
}
