//! What is told of a purge: on standard output what has been done, on standard error what has not.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use super::answer::Done;
use super::batch::{Batch, Place};
use super::client::Fate;
use super::progress::Progress;
use super::text::{counted, elapsed, plain, thousands};

/// How success is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines for people.
    Text,
    /// The API's answers.
    Json,
    /// Not at all.
    Quiet,
}

/// Tells of each call, and of all of them.
pub struct Report {
    form: Form,
    soft: bool,
    /// There are selectors on the command line, perhaps beside those of standard input.
    arguments: bool,
    progress: Progress,
    begun: Instant,
    calls: u64,
    selectors: u64,
}

/// Why it does not go on.
pub struct Stop {
    pub why: String,
    /// The selectors of the call that failed, and what has become of them.
    pub count: u64,
    pub fate: Fate,
    /// Where what is not known to be purged begins.
    pub go_on: Option<Place>,
    /// Nothing would have come after that call.
    pub is_last: bool,
}

impl Report {
    pub fn new(form: Form, soft: bool, arguments: bool, progress: Progress) -> Report {
        Report { form, soft, arguments, progress, begun: Instant::now(), calls: 0, selectors: 0 }
    }

    /// A call begins, after so many bytes of the list. The first is soon over; only a list that is longer has a bar.
    pub fn calling(&mut self, bytes: u64) {
        if self.calls > 0 {
            self.progress.show(self.selectors, bytes);
        }
    }

    /// # Errors
    /// Standard output's.
    pub fn done(&mut self, batch: &Batch, done: &Done, bytes: u64) -> io::Result<()> {
        let count = batch.count() as u64;
        self.calls += 1;
        self.selectors += count;
        if self.calls > 1 {
            self.progress.show(self.selectors, bytes);
        }
        let line = match self.form {
            Form::Text => format!("{} {}: sequence {}", self.verb(), counted(count, "selector"), done.sequence),
            Form::Json => done.json.clone(),
            Form::Quiet => return Ok(()),
        };
        self.progress.aside(|| print(&line))
    }

    /// # Errors
    /// Standard output's.
    pub fn success(&self) -> io::Result<()> {
        self.progress.end();
        if self.form == Form::Text && self.calls > 1 {
            let (selectors, calls) = (counted(self.selectors, "selector"), counted(self.calls, "call"));
            print(&format!("{} {selectors} in {calls}, in {}", self.verb(), elapsed(self.begun.elapsed())))?;
        }
        if self.form != Form::Quiet && self.calls == 0 {
            say("nothing to purge: standard input lists no selector");
        }
        Ok(())
    }

    pub fn failure(&self, stop: &Stop) -> ExitCode {
        self.progress.end();
        let mut text = format!("{}\n{}", stop.why, self.state(stop));
        if let Some(go_on) = self.go_on(stop) {
            text.push('\n');
            text.push_str(&go_on);
        }
        refuse(&text)
    }

    /// What is purged, and what is not.
    fn state(&self, stop: &Stop) -> String {
        let (done, verb) = (self.selectors, self.verb());
        let are = |count| if count == 1 { "is" } else { "are" };
        let first = |count| match count {
            1 => "the first selector".to_owned(),
            _ => format!("the first {} selectors", thousands(count)),
        };
        let next = match (done, stop.count, stop.is_last) {
            (0, 1, true) => "the selector".to_owned(),
            (0, count, true) => format!("the {}", counted(count, "selector")),
            (0, count, false) => first(count),
            (_, 1, _) => "the next one".to_owned(),
            (_, count, _) => format!("the next {}", thousands(count)),
        };
        let before = match done {
            0 => String::new(),
            _ => format!("{} {} {verb}; ", first(done), are(done)),
        };
        let rest = if stop.is_last { "" } else { "; nothing of the rest" };
        match stop.fate {
            Fate::Nothing if done == 0 => format!("nothing is {verb}"),
            // Its selectors are all done, and only their report is not.
            Fate::Nothing if stop.count == 0 && stop.is_last => match done {
                1 => format!("the selector is {verb}"),
                _ => format!("all {} selectors are {verb}", thousands(done)),
            },
            Fate::Nothing => format!("{before}nothing of the rest"),
            Fate::Unknown => format!("{before}whether {next} {} {verb} is not known{rest}", are(stop.count)),
            Fate::NotDurable => format!("{before}{next} {} in force, but not for good{rest}", are(stop.count)),
        }
    }

    fn go_on(&self, stop: &Stop) -> Option<String> {
        let place = match stop.go_on.as_ref()? {
            Place::Line(line) if self.arguments && self.selectors > 0 => {
                format!("line {line} of standard input, without the selectors of the command line")
            }
            Place::Line(line) => format!("line {line} of standard input"),
            Place::Argument(argument) => plain(argument),
        };
        match (self.selectors, stop.fate) {
            (0, Fate::Nothing) => None,
            (0, _) => Some("run it again: to purge twice does no harm".to_owned()),
            (_, Fate::Nothing) => Some(format!("go on at {place}")),
            (_, _) => Some(format!("go on at {place}: to purge twice does no harm")),
        }
    }

    fn verb(&self) -> &'static str {
        if self.soft { "made stale" } else { "purged" }
    }
}

/// Says on standard error why nothing more is done, and fails.
pub fn refuse(why: &str) -> ExitCode {
    say(why);
    ExitCode::FAILURE
}

fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// A reader of standard error that has gone away changes nothing any more.
fn say(text: &str) {
    let _ = io::stderr().lock().write_all(format!("foreland: purge: {text}\n").as_bytes());
}
