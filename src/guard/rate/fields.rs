//! What a client is told of its limits: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-11), and
//! Retry-After (RFC 9110 §10.2.3).

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::limit::{Judgement, Verdict};
use crate::config::model::{OverRate, RateLimit};

pub static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The largest integer of a structured field (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// The values of RateLimit-Policy and RateLimit, for a response to a request that has been judged so; `None` where there is
/// nothing to tell. Told is what the limits that announce themselves say, and what rejects a request, or would have.
///
/// The policy has the rate: `q` requests in `w` seconds. How many may come at once is `foreland-burst`, where that is
/// another number.
pub fn values(limits: &[Arc<RateLimit>], judgement: &Judgement) -> Option<(HeaderValue, HeaderValue)> {
    let (mut policy, mut state) = (String::new(), String::new());
    for (limit, verdict) in limits.iter().zip(&judgement.verdicts) {
        let rejects = matches!(verdict, Verdict::Over { .. }) && limit.action != OverRate::Log;
        if limit.announce || rejects {
            add(&mut policy, &mut state, limit, verdict);
        }
    }
    let value = |text: String| HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok();
    if policy.is_empty() { None } else { Some((value(policy)?, value(state)?)) }
}

/// The value of Retry-After: whole seconds, rounded up, at least 1.
pub fn retry_after(wait: Duration) -> u64 {
    seconds(wait).max(1)
}

fn add(policy: &mut String, state: &mut String, limit: &RateLimit, verdict: &Verdict) {
    for line in [&mut *policy, &mut *state] {
        if !line.is_empty() {
            line.push_str(", ");
        }
        push_string(line, &limit.name);
    }
    let (quota, window) = quota(limit);
    let (remaining, reset) = match *verdict {
        Verdict::Within { remaining, reset } => (remaining, reset),
        Verdict::Wait { reset, .. } => (0, reset),
        Verdict::Over { retry_after } => (0, retry_after),
    };
    // Writing to a string does not fail.
    let _ = write!(policy, ";q={quota};w={window}");
    if u64::from(limit.burst) != quota {
        let _ = write!(policy, ";foreland-burst={}", limit.burst);
    }
    let _ = write!(state, ";r={};t={}", remaining.min(MAX_INTEGER), seconds(reset));
}

/// How many requests in how many seconds: of the rate, or what that comes to in a number of seconds that is whole.
fn quota(limit: &RateLimit) -> (u64, u64) {
    let window = seconds(limit.per).max(1);
    let units = u128::from(limit.requests) * u128::from(window) * 1_000_000_000;
    let quota = u64::try_from(units / limit.per.as_nanos().max(1)).unwrap_or(MAX_INTEGER);
    (quota.clamp(1, MAX_INTEGER), window)
}

/// Rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).min(MAX_INTEGER)
}

/// As a string of a structured field (RFC 9651 §3.3.3), which has no place for what is not ASCII.
fn push_string(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            ' '..='~' => line.push(c),
            _ => line.push('?'),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::KeyPart;

    fn limit(name: &str, requests: u32, per: Duration, burst: u32) -> Arc<RateLimit> {
        let key = vec![KeyPart::ClientIp];
        Arc::new(RateLimit { name: name.into(), key, requests, per, burst, action: OverRate::Reject, announce: true })
    }

    fn told(limits: &[Arc<RateLimit>], verdicts: &[Verdict]) -> Option<(String, String)> {
        let judgement = Judgement { verdicts: verdicts.into(), rejected: None, wait: Duration::ZERO };
        let text = |value: HeaderValue| value.to_str().unwrap().to_owned();
        values(limits, &judgement).map(|(policy, state)| (text(policy), text(state)))
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const WITHIN: Verdict = Verdict::Within { remaining: 50, reset: Duration::from_millis(29_001) };

    #[test]
    fn a_limit_says_its_rate_and_what_is_left() {
        let (policy, state) = told(&[limit("default", 100, MINUTE, 100)], &[WITHIN]).unwrap();
        assert_eq!((&*policy, &*state), (r#""default";q=100;w=60"#, r#""default";r=50;t=30"#));
    }

    #[test]
    fn several_limits_are_a_list_that_a_parser_reads() {
        let limits = [limit("a \"b\" \\ ü", 5, Duration::from_millis(100), 10), limit("x/y", 1000, 60 * MINUTE, 1000)];
        let over = Verdict::Over { retry_after: Duration::from_nanos(1) };
        let (policy, state) = told(&limits, &[WITHIN, over]).unwrap();
        assert_eq!(policy, r#""a \"b\" \\ ?";q=50;w=1;foreland-burst=10, "x/y";q=1000;w=3600"#);
        assert_eq!(state, r#""a \"b\" \\ ?";r=50;t=30, "x/y";r=0;t=1"#);
        for line in [policy, state] {
            let list: sfv::List = sfv::Parser::new(&line).parse().expect("a list");
            assert_eq!(list.len(), 2, "{line}");
        }
    }

    #[test]
    fn what_is_not_announced_is_told_to_the_rejected_alone() {
        let silent = |action| {
            let limit = Arc::into_inner(limit("a", 1, MINUTE, 1)).unwrap();
            Arc::new(RateLimit { action, announce: false, ..limit })
        };
        let over = Verdict::Over { retry_after: MINUTE };
        let loud = limit("b", 1, MINUTE, 1);
        assert_eq!(told(&[silent(OverRate::Reject)], &[WITHIN]), None);
        assert_eq!(told(&[silent(OverRate::Log)], &[over]), None);
        assert_eq!(told(&[silent(OverRate::Reject)], &[over]).unwrap().1, r#""a";r=0;t=60"#);
        let (policy, _) = told(&[silent(OverRate::Reject), loud], &[WITHIN, WITHIN]).unwrap();
        assert_eq!(policy, r#""b";q=1;w=60"#);
        assert_eq!(told(&[], &[]), None);
    }

    #[test]
    fn a_window_is_of_whole_seconds() {
        let of = |requests, millis| quota(&limit("a", requests, Duration::from_millis(millis), 1));
        assert_eq!(of(1, 1), (1000, 1));
        assert_eq!(of(1, 1500), (1, 2));
        assert_eq!(of(3, 1500), (4, 2));
        assert_eq!(of(1, 86_400_000), (1, 86_400));
        assert_eq!(of(u32::MAX, 1), (u64::from(u32::MAX) * 1000, 1));
    }

    #[test]
    fn retry_after_is_never_too_soon() {
        assert_eq!(retry_after(Duration::ZERO), 1);
        assert_eq!(retry_after(Duration::from_millis(1)), 1);
        assert_eq!(retry_after(Duration::from_millis(1001)), 2);
        assert_eq!(retry_after(Duration::MAX), MAX_INTEGER);
    }
}
