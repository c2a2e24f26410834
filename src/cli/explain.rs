//! `foreland explain`: what the edge would do with a request, and which line of its configuration says so.
//!
//! Nothing is sent. The request is taken as far as a process would take it by the same functions, and a response that
//! is given is judged by them.

mod ask;
mod conditions;
mod gather;
mod guards;
mod report;
mod response;
mod text;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{ArgGroup, Args};
use http::{Method, StatusCode};

use self::ask::{Field, Target};
use super::check;
use crate::config;
use crate::guard::Guards;

#[derive(Args)]
#[command(group = ArgGroup::new("answer").args(["response", "status"]).multiple(true))]
pub struct Explain {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The request's method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET", value_parser = ask::method)]
    method: Method,
    /// A field of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = ask::field)]
    headers: Vec<Field>,
    /// The address that the request comes from; without it, from none that is trusted
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// The request comes by TLS, as one for an https URL does
    #[arg(long)]
    tls: bool,
    /// A name in the client's certificate; may be given several times
    #[arg(long, value_name = "NAME")]
    identity: Vec<String>,
    /// The client's country [default: what `geo.country` says of its address]
    #[arg(long, value_name = "CODE", value_parser = ask::country)]
    country: Option<[u8; 2]>,
    /// The client's autonomous system [default: what `geo.asn` says of its address]
    #[arg(long, value_name = "NUMBER")]
    asn: Option<u32>,
    /// A field of the origin's response: says what would be stored; may be given several times
    #[arg(long, value_name = "NAME: VALUE", value_parser = ask::field)]
    response: Vec<Field>,
    /// The status of the origin's response [default with --response: 200]
    #[arg(long, value_name = "STATUS", value_parser = ask::status)]
    status: Option<StatusCode>,
    /// How long after the response the same request comes again [default: 0]
    #[arg(long, value_name = "SECONDS", requires = "answer",
        value_parser = clap::value_parser!(u32).range(..=crate::http_cache::MAX_DELTA_SECONDS as i64))]
    age: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name every route that does not match
    #[arg(short, long)]
    verbose: bool,
    /// What is asked for: a URL, or a path beside -H 'Host: NAME'
    #[arg(value_name = "URL", value_parser = ask::target)]
    url: Target,
}

pub const EXAMPLE: &str = "Example:\n  foreland explain -c foreland.yaml -H 'Cache-Control: no-cache' \\\n    \
    --response 'Cache-Control: max-age=60' --response 'ETag: \"1\"' --age 90 http://www.example.com/a.png\n\n\
    Exits with 1 where the edge would refuse the request, and says how.";

/// Prints what the edge would do. 0: the request would be served; 1: it would be refused, or the file is not valid.
pub fn explain(args: Explain) -> ExitCode {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    let answer = (!args.response.is_empty() || args.status.is_some()).then(|| ask::Answer {
        status: args.status.unwrap_or(StatusCode::OK),
        headers: ask::headers(&args.response),
        again_after: args.age.unwrap_or(0),
    });
    let ask = ask::Ask {
        method: args.method,
        target: args.url.target.clone(),
        headers: args.url.headers(&args.headers),
        from: args.from,
        secure: args.tls || args.url.secure,
        identities: args.identity,
        country: args.country,
        asn: args.asn,
        answer,
        verbose: args.verbose,
    };
    let guards = match Guards::open(&config, None, None) {
        Ok(guards) => guards,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let explanation = gather::explain(&config, &guards, &ask, SystemTime::now().into());
    let text = match args.json {
        true => report::json(&explanation),
        false => text::render(&explanation),
    };
    let printed = check::print(&text);
    if explanation.refused.is_some() { ExitCode::FAILURE } else { printed }
}
