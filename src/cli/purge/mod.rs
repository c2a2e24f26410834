//! `foreland purge`: has a running edge purge what is selected, through its admin API.
//!
//! Success means that every selector is in force and written down; whoever calls this from a script need not look
//! further than the exit code.

mod address;
mod answer;
mod batch;
mod client;
mod duration;
mod lines;
mod progress;
mod report;
mod run;
mod selectors;
mod text;
mod tls;
mod token;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory};

use self::address::Address;
use self::batch::List;
use self::client::Client;
use self::lines::Lines;
use self::progress::Progress;
use self::report::{Form, Report};
use self::selectors::{Manner, Selectors};
use self::tls::{Files, Tls};
use self::token::Token;

/// Where the admin listener is, when --admin does not say.
const ADMIN_VARIABLE: &str = "FORELAND_ADMIN";

/// Whom to trust, when --ca does not say.
const CA_VARIABLE: &str = "FORELAND_ADMIN_CA";

/// The value that stands for standard input.
const STANDARD_INPUT: &str = "-";

#[derive(Args)]
#[command(group = ArgGroup::new("selectors")
    .args(["urls", "hosts", "prefixes", "tags", "sites", "everything"]).multiple(true).required(true))]
pub struct Purge {
    /// The edge's admin listener: http://ADDRESS:PORT, https://ADDRESS:PORT or unix:/path/to/socket [default: the
    /// environment variable FORELAND_ADMIN, or http://127.0.0.1:9180]
    #[arg(long, value_name = "URL")]
    admin: Option<Address>,
    /// With https://, a PEM file with the authorities that may have issued the edge's certificate [default: the
    /// environment variable FORELAND_ADMIN_CA, or the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With https://, a PEM file with the certificate to show to the edge
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// A PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// A URL, with all its variants; may be given several times, as may the other selectors
    #[arg(long = "url", value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    urls: Vec<String>,
    /// All of a host; without a port, on whatever port it was asked for
    #[arg(long = "host", value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    hosts: Vec<String>,
    /// A path on a host and all below it: example.com/a selects /a and /a/b, but not /ab
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = NonEmptyStringValueParser::new())]
    prefixes: Vec<String>,
    /// All that the origin tagged so
    #[arg(long = "tag", value_name = "TAG", value_parser = NonEmptyStringValueParser::new())]
    tags: Vec<String>,
    /// All of a site, by its name in the configuration
    #[arg(long = "site", value_name = "SITE", value_parser = NonEmptyStringValueParser::new())]
    sites: Vec<String>,
    /// All that is stored
    #[arg(long)]
    everything: bool,
    /// Make stale what is selected, rather than purge it: it may still be served while it is fetched anew
    #[arg(long)]
    soft: bool,
    /// Let prefixes end within a segment of the path: example.com/a selects /ab too
    #[arg(long, requires = "prefixes")]
    raw: bool,
    /// Print nothing where all goes well
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
    /// Print the API's answers, one a line
    #[arg(long)]
    json: bool,
    /// How long a call may take, with all that is tried again
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

pub const EXAMPLES: &str = "\
Lists: `-` as the value of one selector reads more of its kind from standard input, one a line. Blank
lines and lines that begin with # are skipped. However long the list, it goes out in calls of up to 10,000
selectors, one after the other. An empty list is a success.

The token, where the admin listener asks for one, comes from the environment variable FORELAND_ADMIN_TOKEN; a client
that the edge knows by its certificate (--client-certificate) needs none.

Exit codes: 0: all that is selected is purged, for good; 1: not so, or not all of it: standard error says
what is, and where to go on; 2: a mistake in the command line.

Example:
  foreland purge --url https://www.example.com/news --url https://www.example.com/logo.png

That is a page in all its variants, and an image. More:
  All of a host, at an edge elsewhere:
    FORELAND_ADMIN_TOKEN=\"$(cat token)\" foreland purge --admin https://edge.example.com:9180 --host www.example.com
  A folder:
    foreland purge --prefix www.example.com/assets/
  Whatever begins so, within a segment too (/release-1.2.tar.gz, /release-1.3/notes):
    foreland purge --raw --prefix www.example.com/release-
  What the origin tagged:
    foreland purge --tag product-17 --tag front-page
  A site, from a deploy script: old pages are served until the new ones are there
    ./deploy.sh && foreland purge --quiet --soft --site shop || exit 1
  All that is stored, over a socket:
    foreland purge --admin unix:/run/foreland/admin.sock --everything
  Lists:
    psql -At -c 'select tag from changed' | foreland purge --tag -
    git diff --name-only v1 v2 -- public | sed 's,^public,https://www.example.com,' | foreland purge --url -";

/// Purges. 0: every selector is in force and durable; 1: refused, failed, or not known; 2: a mistake in the command
/// line.
pub fn purge(args: Purge) -> ExitCode {
    let address = match args.admin {
        Some(address) => address,
        None => match address_from(std::env::var_os(ADMIN_VARIABLE)) {
            Ok(address) => address,
            Err(why) => mistake(ErrorKind::ValueValidation, &format!("{ADMIN_VARIABLE}: {why}")),
        },
    };
    let files = Files { ca: args.ca, client: args.client_certificate.zip(args.client_key) };
    if !address.is_secure() && (files.ca.is_some() || files.client.is_some()) {
        let why = format!("--ca, --client-certificate and --client-key have no effect without https://: {address}");
        mistake(ErrorKind::ArgumentConflict, &why);
    }
    let lists = [
        (List::Sites, args.sites),
        (List::Hosts, args.hosts),
        (List::Prefixes, args.prefixes),
        (List::Urls, args.urls),
        (List::Tags, args.tags),
    ];
    let Given { arguments, piped } = match given(lists) {
        Ok(given) => given,
        Err(why) => mistake(ErrorKind::ArgumentConflict, &why),
    };
    let form = match (args.quiet, args.json) {
        (true, _) => Form::Quiet,
        (false, true) => Form::Json,
        (false, false) => Form::Text,
    };
    let token = match Token::from_value(&std::env::var_os(Token::VARIABLE).unwrap_or_default()) {
        Ok(token) => token,
        Err(why) => return report::refuse(&why),
    };
    let tls = match address.is_secure().then(|| Tls::new(&files.or_ca(std::env::var_os(CA_VARIABLE)))).transpose() {
        Ok(tls) => tls,
        Err(why) => return report::refuse(&why),
    };
    let input = match piped.map(|list| standard_input().map(|input| (list, input))).transpose() {
        Ok(input) => input,
        Err(error) => return report::refuse(&format!("standard input: {error}")),
    };
    let progress = Progress::new(form != Form::Quiet, input.as_ref().and_then(|(_, file)| progress::left(file)));
    let manner = Manner { everything: args.everything, soft: args.soft, raw: args.raw };
    let mixed = args.everything || !arguments.is_empty();
    let selectors = Selectors::new(manner, arguments, input.map(|(list, file)| (list, Lines::new(file))));
    let client = Client::new(address, token, args.timeout).with_tls(tls);
    run::run(client, selectors, Report::new(form, args.soft, mixed, progress))
}

/// The selectors of the command line.
struct Given {
    arguments: Vec<(List, String)>,
    /// What standard input is a list of.
    piped: Option<List>,
}

/// # Errors
/// Standard input is asked for more than once.
fn given(lists: [(List, Vec<String>); 5]) -> Result<Given, String> {
    let mut given = Given { arguments: Vec::new(), piped: None };
    for (list, values) in lists {
        for value in values {
            match (value.as_str(), given.piped) {
                (STANDARD_INPUT, None) => given.piped = Some(list),
                (STANDARD_INPUT, Some(before)) => {
                    let (a, b) = (before.option(), list.option());
                    return Err(format!("standard input can be read once: by '{a} -' or by '{b} -', not by both"));
                }
                _ => given.arguments.push((list, value)),
            }
        }
    }
    Ok(given)
}

/// A variable that is empty counts as none.
fn address_from(variable: Option<OsString>) -> Result<Address, String> {
    match variable.as_ref().map(|value| value.to_str()) {
        None | Some(Some("")) => Address::DEFAULT.parse(),
        Some(Some(text)) => text.parse(),
        Some(None) => Err("not valid UTF-8".to_owned()),
    }
}

/// Without the standard library's buffer around it, and known to be a file where it is one.
fn standard_input() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// Says what is wrong as the parser of the command line does, and ends with 2.
fn mistake(kind: ErrorKind, why: &str) -> ! {
    let mut command = super::Cli::command();
    command.build();
    match command.find_subcommand_mut("purge") {
        Some(purge) => purge.error(kind, why).exit(),
        None => command.error(kind, why).exit(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_read_once() {
        let lists = |urls: &[&str], tags: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let empty = |list| (list, Vec::new());
            [
                empty(List::Sites),
                empty(List::Hosts),
                empty(List::Prefixes),
                (List::Urls, owned(urls)),
                (List::Tags, owned(tags)),
            ]
        };
        let right = given(lists(&["a", "-", "b"], &["c"])).expect("one list");
        assert_eq!((right.piped, right.arguments.len()), (Some(List::Urls), 3));
        assert!(given(lists(&["-"], &["-"])).is_err() && given(lists(&["-", "-"], &[])).is_err());
        assert!(given(lists(&["--"], &["a-"])).is_ok_and(|given| given.piped.is_none()));
    }

    #[test]
    fn an_empty_variable_is_none() {
        let default = Address::DEFAULT.parse::<Address>();
        assert_eq!(address_from(None), default);
        assert_eq!(address_from(Some("".into())), default);
        assert_eq!(address_from(Some("unix:/a".into())), Ok(Address::Unix("/a".into())));
        assert!(address_from(Some("ftp://a".into())).is_err());
    }
}
