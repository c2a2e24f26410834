//! `foreland sign`: signs a URL with a key of the configuration.

mod when;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, ValueEnum};
use http::{Method, Uri};
use ipnet::IpNet;

use self::when::When;
use super::check::print;
use crate::config;
use crate::guard::signed::sign::{CannotSign, Part, Place, Signed, Wish, sign};
use crate::site::normalise_authority;

#[derive(Args)]
pub struct Sign {
    /// The configuration file that has the key
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The URL to be signed, http:// or https://
    #[arg(value_name = "URL")]
    url: String,
    /// The key, by its name in the configuration; its first secret signs
    #[arg(long, value_name = "NAME")]
    key: String,
    /// When the URL ends: so long from now (30m, 1h, 7d), or a time in seconds since 1970
    #[arg(long, value_name = "WHEN", value_parser = when::parse)]
    expires: Option<When>,
    /// When the URL begins to be valid, likewise [default: at once]
    #[arg(long, value_name = "WHEN", value_parser = when::parse)]
    not_before: Option<When>,
    /// The client that may use it, by its address or network [default: any]
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    ip: Option<IpNet>,
    /// Sign a folder, with all that is below it, rather than the URL's path: the URL's own folder, or --prefix=/a/b/
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    prefix: Option<String>,
    /// A method that it is for; may be given several times [default: GET and HEAD]
    #[arg(long = "method", value_name = "METHOD", value_parser = method)]
    methods: Vec<Method>,
    /// The query parameters whose values are signed, separated by commas; * for the whole query [default: none]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    query: Vec<String>,
    /// What the token is called in rate limits [default: the begin of its signature]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Where the token is to stand
    #[arg(long = "in", value_name = "PLACE", value_enum, default_value_t)]
    place: InPlace,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum InPlace {
    /// Behind the query
    #[default]
    Query,
    /// In front of the path: relative URLs of a playlist have it too
    Path,
    /// Not in the URL: print the cookie, NAME=TOKEN, for Set-Cookie
    Cookie,
}

pub const EXAMPLES: &str = "\
Prints the signed URL and nothing else, or with --in cookie the cookie. The formats of some keys do not have all of
these options; then that is said.

Exit codes: 0: signed; 1: the configuration is wrong, or the key cannot sign; 2: a mistake in the command line, also
an option that the key's format does not have.

Example:
  foreland sign -c foreland.yaml --key media --expires 1h https://cdn.example.com/report.pdf

That is one file. More:
  A stream, with its segments and whatever else is in its folder, for players that follow relative URLs:
    foreland sign -c foreland.yaml --key media --expires 6h --prefix --in path https://cdn.example.com/v/7/master.m3u8
  The same by a cookie:
    foreland sign -c foreland.yaml --key media --expires 6h --prefix --in cookie https://cdn.example.com/v/7/master.m3u8
  For one client, with a size that cannot be changed:
    foreland sign -c foreland.yaml --key media --expires 10m --ip 192.0.2.7 --query w,h 'https://cdn.example.com/i.jpg?w=9&h=9'
  An upload:
    foreland sign -c foreland.yaml --key media --expires 10m --method PUT https://cdn.example.com/inbox/7";

/// Signs. 0: signed; 1: the configuration is wrong, or the key cannot sign; 2: a mistake in the command line.
pub fn run(args: Sign) -> ExitCode {
    let uri = match url(&args.url) {
        Ok(uri) => uri,
        Err(why) => mistake(&format!("{}: {why}", args.url)),
    };
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    let Some(key) = config.keys.iter().find(|key| *key.name == *args.key) else {
        let names: Vec<&str> = config.keys.iter().map(|key| &*key.name).collect();
        let near = config::suggest(&args.key, &names);
        mistake(&format!("{} has no key {:?}{near}", args.config.display(), args.key))
    };
    // A clock before 1970 signs nothing that is still valid.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let secure = uri.scheme_str() == Some("https");
    let written = uri.authority().map_or("", |authority| authority.as_str());
    let authority = match normalise_authority(written, if secure { 443 } else { 80 }) {
        Ok((authority, _)) => authority,
        Err(why) => mistake(&format!("{}: {why}", args.url)),
    };
    let folder = uri.path().rfind('/').and_then(|at| uri.path().get(..=at)).unwrap_or("/");
    let wish = Wish {
        secure,
        authority: &authority,
        path: uri.path(),
        query: uri.query(),
        now,
        expires: args.expires.map(|when| when.after(now)),
        not_before: args.not_before.map(|when| when.after(now)),
        client: args.ip,
        prefix: args.prefix.as_deref().map(|prefix| if prefix.is_empty() { folder } else { prefix }),
        methods: &args.methods,
        parameters: &args.query,
        id: args.id.as_deref(),
        place: match args.place {
            InPlace::Query => Place::Query,
            InPlace::Path => Place::Path,
            InPlace::Cookie => Place::Cookie,
        },
    };
    match sign(key, &wish) {
        Ok(Signed::Cookie(cookie)) => print(&format!("{cookie}\n")),
        Ok(Signed::Target(target)) => print(&format!("{}://{written}{target}\n", uri.scheme_str().unwrap_or_default())),
        Err(CannotSign::Impossible(why)) => {
            eprintln!("foreland: key {:?}: {why}", args.key);
            ExitCode::FAILURE
        }
        Err(CannotSign::Unsupported(format, part)) => mistake(&format!("{format} does not have {}", option(part))),
        Err(CannotSign::Needs(part)) => mistake(&format!("key {:?} needs {}", args.key, option(part))),
        Err(CannotSign::Value(part, expected)) => mistake(&format!("{}: expected {expected}", option(part))),
    }
}

/// An absolute URL that can be signed.
fn url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "expected a URL")?;
    match uri.scheme_str() {
        Some("http" | "https") if text.contains('#') => Err("a fragment is never sent, so it cannot be signed"),
        Some("http" | "https") if !text.is_ascii() => {
            Err("what is beyond ASCII must be percent-encoded, as it will be sent")
        }
        Some("http" | "https") => Ok(uri),
        _ => Err("expected a URL that begins with http:// or https://"),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(|address| IpNet::from(address.to_canonical())))
        .map_err(|_| "expected an address, 192.0.2.7, or a network, 2001:db8::/48".to_owned())
}

fn method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|_| "expected a method, as POST".to_owned())
}

/// How the command line calls it.
fn option(part: Part) -> &'static str {
    match part {
        Part::Expires => "--expires",
        Part::NotBefore => "--not-before",
        Part::Client => "--ip",
        Part::Prefix => "--prefix",
        Part::Methods => "--method",
        Part::Parameters => "--query",
        Part::Id => "--id",
        Part::InPath => "--in path",
        Part::InCookie => "--in cookie",
    }
}

/// Says what is wrong as the parser of the command line does, and ends with 2.
fn mistake(why: &str) -> ! {
    let mut command = super::Cli::command();
    command.build();
    match command.find_subcommand_mut("sign") {
        Some(sign) => sign.error(ErrorKind::ValueValidation, why).exit(),
        None => command.error(ErrorKind::ValueValidation, why).exit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_be_signed() {
        for right in ["http://a", "https://a.test:8443/b?c=d", "HTTPS://a/%41"] {
            assert!(url(right).is_ok(), "{right}");
        }
        for wrong in ["", "/a", "a.test/b", "ftp://a/b", "https://a/b#c", "https://a/é", "https://a/ b"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_and_networks() {
        assert_eq!(network("192.0.2.7").map(|network| network.to_string()).as_deref(), Ok("192.0.2.7/32"));
        assert_eq!(network("2001:db8::/48").map(|network| network.to_string()).as_deref(), Ok("2001:db8::/48"));
        assert!(network("192.0.2").is_err() && network("192.0.2.0/33").is_err());
    }
}
