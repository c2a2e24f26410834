//! The command line: one file a subcommand.
//!
//! Exit codes: 0; 1: refused, with the reason on standard error; 2: a mistake in the command line.

mod check;
mod demo;
mod explain;
mod purge;
mod run;
mod schema;
mod sign;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A CDN edge in one binary: caches, balances, protects and explains.
#[derive(Parser)]
#[command(name = "foreland", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve traffic as a configuration file says
    #[command(after_help = "Example:\n  foreland run -c /etc/foreland/foreland.yaml\n\nSignals: HUP reloads the \
        configuration, TERM finishes what is in flight and ends, QUIT hands over to a process started with \
        --upgrade, USR1 reopens the logs.")]
    Run {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Take the listening sockets over from the running process, once that one is sent QUIT
        #[arg(long)]
        upgrade: bool,
    },
    /// Check a configuration file and say everything that is wrong with it
    #[command(
        after_help = "Example:\n  foreland check -c foreland.yaml && foreland check -c foreland.yaml --effective"
    )]
    Check {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Print the whole policy, with every default filled in
        #[arg(long)]
        effective: bool,
    },
    /// Say what would become of a request, and which line of the configuration says so
    #[command(after_help = explain::EXAMPLE)]
    Explain(explain::Explain),
    /// Have a running edge purge what is selected: at once, and for good
    #[command(after_help = purge::EXAMPLES)]
    Purge(purge::Purge),
    /// Sign a URL with a key of the configuration
    #[command(after_help = sign::EXAMPLES)]
    Sign(sign::Sign),
    /// Run an edge in front of three embedded origins: nothing to configure
    #[command(after_help = "Example:\n  foreland demo")]
    Demo {
        /// Where the edge listens
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
        listen: std::net::SocketAddr,
        /// Where the admin API listens
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
        admin: std::net::SocketAddr,
    },
    /// Print the JSON Schema of the configuration file
    #[command(after_help = "Example:\n  foreland schema > foreland.schema.json\n  foreland schema --markdown")]
    Schema {
        /// Print the reference page instead
        #[arg(long)]
        markdown: bool,
    },
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { config, upgrade } => run::run(&config, upgrade),
        Command::Check { config, effective } => check::check(&config, effective),
        Command::Explain(args) => explain::explain(args),
        Command::Purge(args) => purge::purge(args),
        Command::Sign(args) => sign::run(args),
        Command::Demo { listen, admin } => demo::run(listen, admin),
        Command::Schema { markdown } => schema::schema(markdown),
    }
}

/// The process's own log, on standard error. `RUST_LOG` changes what it says.
///
/// What a client does wrong is no trouble of the process, and must not fill its log: Pingora says such things at the
/// crate's root, and in the part that serves connections.
fn init_log() {
    let quiet = "info,pingora_core=warn,pingora_core::apps=off,pingora_proxy=off,pingora_proxy::proxy_cache=warn,\
                 pingora_cache=warn,hickory_proto=warn,hickory_resolver=warn";
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(quiet)).try_init();
}
