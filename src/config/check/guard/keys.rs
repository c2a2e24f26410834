//! Keys of signed URLs: secrets and public keys are read here.

use std::path::Path;

use super::super::secret;
use super::public_key;
use crate::config::Env;
use crate::config::decode::{OneOrMany, Placed};
use crate::config::model::{AkamaiAlgorithm, Piece, PublicKey, PublicKeyKind, Secret, UrlFormat, UrlKey};
use crate::config::raw;
use crate::config::report::{Place, Report, one_of};
use crate::config::words::{SecretRef, TokenName, UrlFormatWord};

/// The shortest secret that cannot be guessed: 128 bits, were they random.
const SHORTEST: usize = 16;

/// The shortest secret of HS256 (RFC 7518 §3.2).
const SHORTEST_JWT: usize = 32;

/// Checks the keys. `base` and `env` are for reading secrets and files.
pub(in crate::config::check) fn keys(
    root: &raw::Root,
    base: &Path,
    env: Env<'_>,
    report: &mut Report,
) -> Option<Vec<UrlKey>> {
    let pairs = root.keys.iter().flat_map(|map| &map.0);
    // Not stopping at the first that fails.
    let checked: Vec<Option<UrlKey>> = pairs.map(|(name, raw)| key(&name.0, raw, base, env, report)).collect();
    checked.into_iter().collect()
}

fn key(name: &str, raw: &Placed<raw::UrlKey>, base: &Path, env: Env<'_>, report: &mut Report) -> Option<UrlKey> {
    let word = raw.format.as_ref()?.value;
    ineffective(raw, word, report);
    let secrets = raw.secrets.as_ref().map(|list| secrets(list, word, base, env, report));
    let public = raw.public_keys.as_ref().map(|map| public_key::all(map, word, base, report));
    missing(raw, word, report);
    let parameter = |usual: &str| raw.parameter.as_ref().map_or_else(|| usual.to_owned(), |name| name.value.0.clone());
    let format = match word {
        UrlFormatWord::Foreland => {
            Some(UrlFormat::Foreland { secrets: secrets.flatten()?, parameter: parameter("token") })
        }
        UrlFormatWord::SecureLink => secure_link(raw, secrets.flatten(), report),
        UrlFormatWord::Akamai => akamai(raw, secrets.flatten(), parameter("hdnts"), base, env, report),
        UrlFormatWord::Cloudflare => Some(UrlFormat::Cloudflare {
            secrets: secrets.flatten()?,
            parameter: parameter("verify"),
            lifetime: raw.lifetime.as_ref()?.0,
        }),
        UrlFormatWord::CloudFront => Some(UrlFormat::CloudFront { keys: public.flatten()? }),
        UrlFormatWord::Jwt => jwt(raw, secrets, public, parameter("URISigningPackage")),
    };
    Some(UrlKey { name: name.into(), format: format?, expired: raw.expired.as_ref()?.0, skew: raw.skew.as_ref()?.0 })
}

/// Reports settings of other formats than this.
fn ineffective(raw: &raw::UrlKey, format: UrlFormatWord, report: &mut Report) {
    use UrlFormatWord::{Akamai, CloudFront, Cloudflare, Foreland, Jwt, SecureLink};
    fn at<T>(placed: &Option<Placed<T>>) -> Option<&Place> {
        placed.as_ref().map(|placed| &placed.place)
    }
    let settings: [(&str, Option<&Place>, &[UrlFormatWord]); 14] = [
        ("secrets", at(&raw.secrets), &[Foreland, SecureLink, Akamai, Cloudflare, Jwt]),
        ("public_keys", at(&raw.public_keys), &[CloudFront, Jwt]),
        ("parameter", at(&raw.parameter), &[Foreland, Akamai, Cloudflare, Jwt]),
        ("expression", at(&raw.expression), &[SecureLink]),
        ("md5_parameter", at(&raw.md5_parameter), &[SecureLink]),
        ("expires_parameter", at(&raw.expires_parameter), &[SecureLink]),
        ("algorithm", at(&raw.algorithm), &[Akamai]),
        ("salt", at(&raw.salt), &[Akamai]),
        ("field_delimiter", at(&raw.field_delimiter), &[Akamai]),
        ("acl_delimiter", at(&raw.acl_delimiter), &[Akamai]),
        ("escape_early", at(&raw.escape_early), &[Akamai]),
        ("lifetime", at(&raw.lifetime), &[Cloudflare]),
        ("issuers", at(&raw.issuers), &[Jwt]),
        ("audience", at(&raw.audience), &[Jwt]),
    ];
    for (name, place, formats) in settings {
        if let Some(place) = place.filter(|_| !formats.contains(&format)) {
            let formats: Vec<&str> = formats.iter().map(|format| format.as_str()).collect();
            let of = one_of(&formats);
            report.error(place, format!("`{name}` has no effect beside `format: {}`, only for {of}", format.as_str()));
        }
    }
}

/// Reports settings that this format needs.
fn missing(raw: &Placed<raw::UrlKey>, format: UrlFormatWord, report: &mut Report) {
    let given = |there: bool, name: &str, report: &Report| {
        // What is given and wrong has been reported; it is not missing.
        there || report.is_wrong(&format!("{}.{name}", raw.place.path))
    };
    let secrets = given(raw.secrets.is_some(), "secrets", report);
    let public = given(raw.public_keys.is_some(), "public_keys", report);
    let lifetime = given(raw.lifetime.is_some(), "lifetime", report);
    let (there, what) = match format {
        UrlFormatWord::CloudFront => (public, "`public_keys` is"),
        UrlFormatWord::Jwt => (secrets || public, "`secrets` or `public_keys` is"),
        _ => (secrets, "`secrets` is"),
    };
    if !there {
        report.error(&raw.place, format!("the key {what} missing, for `format: {}`", format.as_str()));
    }
    if format == UrlFormatWord::Cloudflare && !lifetime {
        report.error(&raw.place, "the key `lifetime` is missing, for `format: cloudflare`");
    }
}

/// The secrets of a list, each another.
fn secrets(
    list: &OneOrMany<SecretRef>,
    format: UrlFormatWord,
    base: &Path,
    env: Env<'_>,
    report: &mut Report,
) -> Option<Vec<Secret>> {
    let mut read: Vec<(Secret, &Place)> = Vec::new();
    let mut whole = true;
    for raw in &list.0 {
        let secret = secret::read(raw, base, env, report);
        let secret = match format {
            UrlFormatWord::Akamai => secret.and_then(|secret| hexadecimal(secret, &raw.place, report)),
            _ => secret,
        };
        let Some(secret) = secret else {
            whole = false;
            continue;
        };
        if let Some((_, first)) = read.iter().find(|(other, _)| other.0 == secret.0) {
            report.error(
                &raw.place,
                format!("the secret is the same as that of {} on line {}", first.path, first.mark.line),
            );
            whole = false;
            continue;
        }
        warn_of_short(&secret, format, &raw.place, report);
        read.push((secret, &raw.place));
    }
    whole.then(|| read.into_iter().map(|(secret, _)| secret).collect())
}

fn warn_of_short(secret: &Secret, format: UrlFormatWord, place: &Place, report: &mut Report) {
    let length = secret.0.len();
    if length < SHORTEST {
        let bytes = if length == 1 { "byte" } else { "bytes" };
        report.warn(place, format!("the secret has {length} {bytes}: one of fewer than {SHORTEST} can be guessed"));
    } else if length < SHORTEST_JWT && format == UrlFormatWord::Jwt {
        report.warn(place, format!("the secret has {length} bytes: RFC 7518 asks for {SHORTEST_JWT} at least"));
    }
}

/// What a secret says in hexadecimal digits. It is not printed where it does not.
fn hexadecimal(secret: Secret, place: &Place, report: &mut Report) -> Option<Secret> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    match secret.0.chunks(2).map(pair).collect::<Option<Vec<u8>>>() {
        Some(bytes) => Some(Secret(bytes, secret.1)),
        None => {
            report.error(place, "the secret is not an even number of hexadecimal digits, as keys of Akamai are");
            None
        }
    }
}

fn secure_link(raw: &Placed<raw::UrlKey>, secrets: Option<Vec<Secret>>, report: &mut Report) -> Option<UrlFormat> {
    let known = report.errors.len();
    let expression = match &raw.expression {
        Some(expression) => expression.value.0.clone(),
        // One that is wrong has been reported.
        None if report.is_wrong(&format!("{}.expression", raw.place.path)) => return None,
        None => usual_expression(),
    };
    let name = |given: &Option<Placed<TokenName>>, usual: &str| {
        given.as_ref().map_or_else(|| usual.to_owned(), |name| name.value.0.clone())
    };
    let (md5, expires) = (name(&raw.md5_parameter, "md5"), name(&raw.expires_parameter, "expires"));
    if expression.contains(&Piece::Expires) {
        if md5 == expires
            && let Some(place) = raw.expires_parameter.as_ref().or(raw.md5_parameter.as_ref()).map(|raw| &raw.place)
        {
            report.error(place, format!("`{md5}` cannot have both the signature and the time"));
        }
    } else {
        endless(raw, report);
    }
    if let Some(place) = raw.expression.as_ref().map(|expression| &expression.place) {
        if expression.contains(&Piece::Argument(md5.clone())) {
            report.error(place, format!("`$arg_{md5}` is the signature itself, so that nothing can be signed"));
        }
        if !expression.contains(&Piece::Uri) {
            report.warn(place, "without `$uri`, the signature of one URL is that of all others too");
        }
    }
    let secrets = secrets?;
    (report.errors.len() == known).then_some(UrlFormat::SecureLink {
        secrets,
        expression,
        md5_parameter: md5,
        expires_parameter: expires,
    })
}

/// nginx's own example, with `$secret` where it has the secret.
fn usual_expression() -> Vec<Piece> {
    vec![Piece::Expires, Piece::Uri, Piece::RemoteAddress, Piece::Text(" ".to_owned()), Piece::Secret]
}

/// What is said of a time that no URL has.
fn endless(raw: &raw::UrlKey, report: &mut Report) {
    let expired = raw.expired.as_ref().filter(|raw| raw.given).map(|raw| &raw.place);
    let skew = raw.skew.as_ref().filter(|raw| raw.given).map(|raw| &raw.place);
    let parameter = raw.expires_parameter.as_ref().map(|raw| &raw.place);
    for (name, place) in [("expires_parameter", parameter), ("expired", expired), ("skew", skew)] {
        if let Some(place) = place {
            report.error(
                place,
                format!(
                    "`{name}` has no effect: the expression has no `$secure_link_expires`, so that URLs never expire"
                ),
            );
        }
    }
    if let Some(expression) = &raw.expression {
        report.warn(&expression.place, "without `$secure_link_expires`, URLs never expire");
    }
}

fn akamai(
    raw: &raw::UrlKey,
    secrets: Option<Vec<Secret>>,
    parameter: String,
    base: &Path,
    env: Env<'_>,
    report: &mut Report,
) -> Option<UrlFormat> {
    let salt = raw.salt.as_ref().map(|salt| secret::read(salt, base, env, report));
    let field_delimiter = raw.field_delimiter.as_ref().map_or('~', |delimiter| delimiter.0);
    let acl_delimiter = raw.acl_delimiter.as_ref().map_or('!', |delimiter| delimiter.0);
    if field_delimiter == acl_delimiter
        && let Some(place) = raw.acl_delimiter.as_ref().or(raw.field_delimiter.as_ref()).map(|raw| &raw.place)
    {
        report.error(place, format!("`{acl_delimiter}` cannot stand between both fields and patterns"));
        return None;
    }
    Some(UrlFormat::Akamai {
        secrets: secrets?,
        parameter,
        algorithm: raw.algorithm.as_ref().map_or(AkamaiAlgorithm::Sha256, |word| word.value.0),
        salt: match salt {
            Some(salt) => Some(salt?),
            None => None,
        },
        field_delimiter,
        acl_delimiter,
        escape_early: raw.escape_early.as_ref().is_some_and(|escape| escape.value),
    })
}

/// What was not given is empty; what was given and wrong is `Some(None)`.
fn jwt(
    raw: &raw::UrlKey,
    secrets: Option<Option<Vec<Secret>>>,
    public: Option<Option<Vec<PublicKey>>>,
    parameter: String,
) -> Option<UrlFormat> {
    Some(UrlFormat::Jwt {
        secrets: secrets.unwrap_or_else(|| Some(Vec::new()))?,
        keys: public.unwrap_or_else(|| Some(Vec::new()))?,
        parameter,
        issuers: raw.issuers.iter().flat_map(|list| &list.0).map(|issuer| issuer.0.clone()).collect(),
        audience: raw.audience.as_ref().map(|audience| audience.0.clone()),
    })
}

/// Whether the format's tokens may be signed by such keys.
pub(super) fn takes(format: UrlFormatWord, kind: PublicKeyKind) -> bool {
    format == UrlFormatWord::Jwt || kind != PublicKeyKind::P384
}
