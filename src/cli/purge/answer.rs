//! What an answer of the API means.

use http::StatusCode;
use serde_json::Value;

use super::batch::{Batch, List};
use super::client::{Answer, Client, Failure, Fate};
use super::text::{counted, plain};
use super::token::Token;
use crate::config::show_duration;

/// A call whose selectors are in force and written down.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    pub sequence: u64,
    /// The answer as it came, in one line.
    pub json: String,
}

/// Whether the edge cannot purge now and has done nothing, so that it is worth asking again.
pub fn is_unavailable(answer: &Answer) -> bool {
    answer.status == StatusCode::SERVICE_UNAVAILABLE && !is_in_force(&parse(answer))
}

/// Takes nothing for a success but a 200 with a sequence.
///
/// # Errors
/// What the edge says against it, and what has become of the selectors.
pub fn judge(answer: &Answer, batch: &Batch, client: &Client) -> Result<Done, Failure> {
    let parsed = parse(answer);
    if answer.status == StatusCode::OK {
        return done(answer, &parsed, client);
    }
    let (edge, status) = (client.address(), answer.status.as_u16());
    let said = said(answer, &parsed);
    let refused = |why: String| Err(Failure { why, fate: Fate::Nothing });
    match answer.status {
        StatusCode::BAD_REQUEST => match wrong(&parsed, batch) {
            Some(wrong) => refused(wrong),
            None => refused(format!("{edge} refuses the call ({status}{said})")),
        },
        StatusCode::UNAUTHORIZED if client.has_token() => refused(format!(
            "{edge} does not take the token in {} ({status}{said}): set it to one of `admin:` in the edge's \
             configuration",
            Token::VARIABLE
        )),
        StatusCode::UNAUTHORIZED => refused(format!(
            "{edge} asks for a token ({status}{said}): set {} to one of `admin:` in the edge's configuration",
            Token::VARIABLE
        )),
        // What its role is, or that its certificate is nobody's, the edge says.
        StatusCode::FORBIDDEN if client.has_token() || edge.is_secure() => {
            refused(format!("{edge} does not let this command in ({status}{said})"))
        }
        StatusCode::FORBIDDEN => refused(format!(
            "{edge} does not let this command in ({status}{said}): without a token an edge answers to an IP address \
             and to localhost alone, so name it so in --admin, or give it a token"
        )),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => refused(format!(
            "{edge} has nothing that purges ({status}{said}): is it the admin listener of an edge (`admin: address:` \
             in its configuration)?"
        )),
        StatusCode::PAYLOAD_TOO_LARGE => refused(format!(
            "{edge} takes no call of {} ({status}{said}): give fewer at once",
            counted(batch.count() as u64, "selector")
        )),
        StatusCode::SERVICE_UNAVAILABLE if is_in_force(&parsed) => Err(Failure {
            why: format!(
                "in force at {edge}, but not written down, so that a crash of the edge would undo it ({status}{said}): \
                 purge again once its disk takes writes"
            ),
            fate: Fate::NotDurable,
        }),
        StatusCode::SERVICE_UNAVAILABLE => {
            let tried = match answer.retry_after {
                Some(_) => format!("; tried for as long as --timeout {} allows", show_duration(client.timeout())),
                None => String::new(),
            };
            let fate = if parsed.is_some() { Fate::Nothing } else { Fate::Unknown };
            Err(Failure { why: format!("{edge} cannot purge now ({status}{said}){tried}"), fate })
        }
        _ => {
            let fate = if answer.status.is_client_error() { Fate::Nothing } else { Fate::Unknown };
            Err(Failure { why: format!("{edge} answered with status {status}{said}"), fate })
        }
    }
}

fn done(answer: &Answer, parsed: &Option<Value>, client: &Client) -> Result<Done, Failure> {
    let why = match (&answer.body, parsed) {
        (Err(why), _) => why.as_str(),
        (Ok(_), None) => "the answer is no JSON: is this the admin listener of an edge?",
        (Ok(body), Some(value)) => match value.get("sequence").and_then(Value::as_u64) {
            Some(sequence) => {
                // Between its tokens JSON may have line ends, within them never.
                let json = String::from_utf8_lossy(body).trim().replace(['\n', '\r'], " ");
                return Ok(Done { sequence, json });
            }
            None => "the answer has no sequence: is this the admin listener of an edge?",
        },
    };
    Err(Failure { why: format!("{}: {why}", client.address()), fate: Fate::Unknown })
}

fn parse(answer: &Answer) -> Option<Value> {
    answer.body.as_ref().ok().and_then(|body| serde_json::from_slice(body).ok())
}

fn is_in_force(parsed: &Option<Value>) -> bool {
    parsed.as_ref().and_then(|value| value.get("in_force")).and_then(Value::as_bool) == Some(true)
}

/// The edge's own words, after the status.
fn said(answer: &Answer, parsed: &Option<Value>) -> String {
    match (&answer.body, parsed.as_ref().and_then(|value| value.get("error")).and_then(Value::as_str)) {
        (Ok(_), Some(error)) => format!(": {}", plain(error)),
        (Ok(_), None) => String::new(),
        (Err(why), _) => format!(": {why}"),
    }
}

/// Each wrong selector in a line of its own: the option, the value, the line of standard input, and why. `None`: the
/// answer names none.
fn wrong(parsed: &Option<Value>, batch: &Batch) -> Option<String> {
    let wrong = parsed.as_ref()?.get("selectors")?.as_array().filter(|wrong| !wrong.is_empty())?;
    let (count, are) = (counted(wrong.len() as u64, "selector"), if wrong.len() == 1 { "is" } else { "are" });
    let mut text = format!("{count} {are} wrong, so that nothing of this call is purged:");
    for selector in wrong {
        let list = text_of(selector, "list");
        let known = List::of_key(list);
        let index = selector.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let line = known.zip(index).and_then(|(list, index)| batch.line(list, index));
        let place = line.map(|line| format!(" (line {line} of standard input)")).unwrap_or_default();
        let option = known.map_or(list, |known| known.option());
        let (value, why) = (plain(text_of(selector, "value")), plain(text_of(selector, "error")));
        text.push_str(&format!("\n  {} {value}{place}: {why}", plain(option)));
    }
    Some(text)
}

fn text_of<'a>(selector: &'a Value, key: &str) -> &'a str {
    selector.get(key).and_then(Value::as_str).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::address::Address;
    use super::super::batch::Selector;
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, retry_after: None, body: Ok(Bytes::copy_from_slice(body.as_bytes())) }
    }

    fn batch() -> Batch {
        let mut batch = Batch::new(false, false, false);
        for selector in [
            Selector::argument(List::Tags, "a b".to_owned()),
            Selector::line(List::Tags, "c d", 7),
            Selector::argument(List::Urls, "x".to_owned()),
        ] {
            assert!(batch.push(selector).is_ok());
        }
        batch
    }

    fn judged(answer: &Answer) -> Result<Done, Failure> {
        let address: Address = Address::DEFAULT.parse().expect("an address");
        judge(answer, &batch(), &Client::new(address, None, Duration::from_secs(30)))
    }

    #[test]
    fn only_a_200_with_a_sequence_is_a_success() {
        let body = "{\n \"sequence\": 12,\r\n \"at\": \"x\" }\n";
        let json = "{  \"sequence\": 12,   \"at\": \"x\" }".to_owned();
        assert_eq!(judged(&answer(200, body)), Ok(Done { sequence: 12, json }));
        for (status, body) in [
            (200, ""),
            (200, "ok"),
            (200, "{}"),
            (200, "[1]"),
            (200, "{\"sequence\": \"12\"}"),
            (200, "{\"sequence\": -1}"),
            (200, "{\"sequence\": 1.5}"),
            (200, "{\"sequence\": null}"),
            (200, "{\"sequence\": 12} x"),
            (201, "{\"sequence\": 12}"),
            (202, "{\"sequence\": 12}"),
            (204, ""),
            (302, ""),
            (500, "{\"error\": \"panicked\"}"),
            (502, "<html>"),
            (503, "<html>"),
        ] {
            assert_eq!(judged(&answer(status, body)).map_err(|it| it.fate), Err(Fate::Unknown), "{status} {body}");
        }
        let broken = Answer { body: Err("the answer broke off".to_owned()), ..answer(200, "") };
        assert_eq!(judged(&broken).map_err(|it| it.fate), Err(Fate::Unknown));
    }

    #[test]
    fn a_refusal_changes_nothing() {
        for status in [400, 401, 403, 404, 405, 408, 413, 415, 429, 503] {
            let failure = judged(&answer(status, "{\"error\": \"because\"}")).expect_err("a refusal");
            assert_eq!(failure.fate, Fate::Nothing, "{status}");
            assert!(failure.why.contains("because") && failure.why.contains(&status.to_string()), "{}", failure.why);
        }
        for odd in ["", "null", "[]", "{\"selectors\": []}", "{\"selectors\": 1}", "{\"error\": 1}"] {
            assert_eq!(judged(&answer(400, odd)).map_err(|it| it.fate), Err(Fate::Nothing), "{odd}");
        }
    }

    #[test]
    fn what_a_token_may_not_is_its_role() {
        let answer = answer(403, "{\"error\": \"this needs the role `purge` or `all`; yours is `read`\"}");
        let address: Address = Address::DEFAULT.parse().expect("an address");
        let token = Token::from_value("secret".as_ref()).expect("a token");
        let why = |token| {
            judge(&answer, &batch(), &Client::new(address.clone(), token, Duration::from_secs(30)))
                .expect_err("403")
                .why
        };
        assert!(why(token).ends_with("(403: this needs the role `purge` or `all`; yours is `read`)"));
        assert!(why(None).contains("localhost"));
    }

    #[test]
    fn what_is_in_force_is_not_tried_again() {
        let in_force = answer(503, r#"{"error": "disk full", "sequence": 3, "in_force": true}"#);
        assert!(!is_unavailable(&in_force));
        assert_eq!(judged(&in_force).map_err(|it| it.fate), Err(Fate::NotDurable));
        assert!(is_unavailable(&answer(503, r#"{"error": "draining"}"#)) && is_unavailable(&answer(503, "")));
        assert!(!is_unavailable(&answer(500, "")) && !is_unavailable(&answer(200, "")));
    }

    #[test]
    fn wrong_selectors_are_named() {
        let body = r#"{"error": "2 wrong", "selectors": [
            {"list": "tags", "index": 0, "value": "a b", "error": "a space"},
            {"list": "tags", "index": 1, "value": "c\u001b[2Jd", "error": "a space"},
            {"list": "urls", "index": 99, "value": "x", "error": "no scheme"},
            {"list": "new", "index": -1}]}"#;
        let why = judged(&answer(400, body)).expect_err("wrong").why;
        let lines: Vec<&str> = why.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "  --tag a b: a space",
                "  --tag c\\u{1b}[2Jd (line 7 of standard input): a space",
                "  --url x: no scheme",
                "  new ?: ?",
            ]
        );
        assert!(why.starts_with("4 selectors are wrong"), "{why}");
    }
}
