//! What a policy allows: CloudFront Developer Guide, "Values that you specify in the policy statement for a signed URL that
//! uses a custom policy".

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::guard::signed::text::may_climb;
use crate::guard::signed::{Presented, Refused};
use crate::site::has_dot_segments;

/// A policy that has been signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// With wildcards; `None`: any URL.
    resource: Option<String>,
    /// In seconds since the epoch, as all times here.
    until: u64,
    from: Option<u64>,
    /// `None`: any client.
    network: Option<IpNet>,
}

impl Policy {
    /// A canned one: the URL is part of what was signed.
    pub(super) fn until(expires: u64) -> Self {
        Policy { resource: None, until: expires, from: None, network: None }
    }

    /// Reads a custom one. What is not known is an error: it may be a condition.
    pub(super) fn read(text: &[u8]) -> Result<Self, &'static str> {
        let document: Document = serde_json::from_slice(text).map_err(|_| "Policy is not a policy statement")?;
        let [statement] = document.statement;
        let network = match statement.condition.address {
            Some(address) => network(&address.source)?,
            None => None,
        };
        Ok(Policy {
            resource: statement.resource,
            until: statement.condition.until.time,
            from: statement.condition.from.map(|from| from.time),
            network,
        })
    }

    pub(super) fn expires(&self) -> u64 {
        self.until
    }

    /// Whether it allows this request, for this URL.
    pub(super) fn check(&self, request: &Presented<'_>, url: &str, now: u64, skew: u64) -> Result<(), Refused> {
        if now >= self.until.saturating_add(skew) {
            return Err(Refused::Expired(self.until));
        }
        if let Some(from) = self.from.filter(|from| now.saturating_add(skew) < *from) {
            return Err(Refused::NotYet(from));
        }
        if self.network.is_some_and(|network| !network.contains(&request.client)) {
            return Err(Refused::Elsewhere("the policy is for another address"));
        }
        let Some(resource) = &self.resource else { return Ok(()) };
        // `/free/../paid/x` begins with `/free/` and is `/paid/x`. Clients resolve these themselves. So may an origin be
        // led by `/free/..%2fpaid/x`.
        if has_dot_segments(request.path) || may_climb(request.path) {
            return Err(Refused::Elsewhere("the path has dot segments, under a policy for many URLs"));
        }
        if !covers(resource.as_bytes(), url.as_bytes()) {
            return Err(Refused::Elsewhere("the policy is for another URL"));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// "You can include only one statement."
    #[serde(rename = "Statement")]
    statement: [Statement; 1],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Resource")]
    resource: Option<String>,
    #[serde(rename = "Condition")]
    condition: Condition,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(rename = "DateLessThan")]
    until: Time,
    #[serde(rename = "DateGreaterThan")]
    from: Option<Time>,
    #[serde(rename = "IpAddress")]
    address: Option<Address>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Time {
    #[serde(rename = "AWS:EpochTime")]
    time: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    #[serde(rename = "AWS:SourceIp")]
    source: String,
}

/// Signers' libraries write `0.0.0.0/0` where nobody has asked for a restriction, so it means any client, over IPv6 too.
fn network(text: &str) -> Result<Option<IpNet>, &'static str> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match network {
        Some(network) if network.addr().is_unspecified() && network.prefix_len() == 0 => Ok(None),
        Some(network) => Ok(Some(network)),
        None => Err("AWS:SourceIp is not an address or a range of them"),
    }
}

/// Whether a pattern matches the whole of a text: `*` is any run of characters, `?` is one.
fn covers(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a comparison fails: after the last `*`, which takes one character more.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, t));
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, taken)) = retry else { return false };
                retry = Some((after, taken + 1));
                (p, t) = (after, taken + 1);
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards_match_as_cloudfront_documents() {
        let matches = |pattern: &str, text: &str| covers(pattern.as_bytes(), text.as_bytes());
        // The Developer Guide's own examples.
        let pattern = "http://d111111abcdef8.cloudfront.net/*game_download.zip*";
        for url in ["game_download.zip", "example_game_download.zip?license=yes", "test_game_download.zip?license=temp"]
        {
            assert!(matches(pattern, &format!("http://d111111abcdef8.cloudfront.net/{url}")), "{url}");
        }
        assert!(!matches(pattern, "http://d111111abcdef8.cloudfront.net/game_download.rar"));
        assert!(!matches(pattern, "https://d111111abcdef8.cloudfront.net/game_download.zip"));
        assert!(matches("http*://*.example.com/a?.jpg?size=*", "https://m.example.com/ab.jpg?size=1"));
        assert!(!matches("http*://*.example.com/a?.jpg", "https://m.example.com/a.jpg"));
        assert!(matches("*", "") && matches("", "") && !matches("?", "") && !matches("", "a"));
    }

    /// The same by its definition.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if by_definition(rest, text) => true,
            (Some((b'*', _)), Some((_, after))) => by_definition(pattern, after),
            (Some((b'?', rest)), Some((_, after))) => by_definition(rest, after),
            (Some((wanted, rest)), Some((byte, after))) => wanted == byte && by_definition(rest, after),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn wildcards_match_by_their_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(
                covers(pattern.as_bytes(), text.as_bytes()),
                by_definition(pattern.as_bytes(), text.as_bytes())
            );
        }
    }

    #[test]
    fn only_a_statement_that_is_understood_is_a_policy() {
        let time = r#""DateLessThan":{"AWS:EpochTime":9}"#;
        let read = |text: &str| Policy::read(text.as_bytes());
        let whole = format!(
            r#"{{"Statement":[{{"Resource":"*","Condition":{{{time},"DateGreaterThan":{{"AWS:EpochTime":3}},"IpAddress":{{"AWS:SourceIp":"192.0.2.0/24"}}}}}}]}}"#
        );
        let expected = Policy {
            resource: Some("*".to_owned()),
            until: 9,
            from: Some(3),
            network: Some("192.0.2.0/24".parse().unwrap()),
        };
        assert_eq!(read(&whole), Ok(expected));
        // "If you omit the Resource parameter …, users can access all of the files".
        assert_eq!(read(&format!(r#"{{"Statement":[{{"Condition":{{{time}}}}}]}}"#)), Ok(Policy::until(9)));
        for source in ["0.0.0.0/0", "::/0"] {
            let text =
                format!(r#"{{"Statement":[{{"Condition":{{{time},"IpAddress":{{"AWS:SourceIp":"{source}"}}}}}}]}}"#);
            assert_eq!(read(&text), Ok(Policy::until(9)), "{source}");
        }
        for text in [
            String::new(),
            "[]".to_owned(),
            r#"{"Statement":[]}"#.to_owned(),
            // Without an end.
            r#"{"Statement":[{"Resource":"*","Condition":{}}]}"#.to_owned(),
            r#"{"Statement":[{"Resource":"*"}]}"#.to_owned(),
            // Not whole seconds, in a string, before the epoch.
            r#"{"Statement":[{"Condition":{"DateLessThan":{"AWS:EpochTime":"9"}}}]}"#.to_owned(),
            r#"{"Statement":[{"Condition":{"DateLessThan":{"AWS:EpochTime":9.5}}}]}"#.to_owned(),
            r#"{"Statement":[{"Condition":{"DateLessThan":{"AWS:EpochTime":-9}}}]}"#.to_owned(),
            // Twice, or two statements.
            format!(r#"{{"Statement":[{{"Condition":{{{time},{time}}}}}]}}"#),
            format!(r#"{{"Statement":[{{"Condition":{{{time}}}}},{{"Condition":{{{time}}}}}]}}"#),
            // A condition that nobody here knows.
            format!(r#"{{"Statement":[{{"Condition":{{{time},"StringEquals":{{"a":"b"}}}}}}]}}"#),
            format!(r#"{{"Statement":[{{"Effect":"Deny","Condition":{{{time}}}}}]}}"#),
            format!(r#"{{"Statement":[{{"Condition":{{{time},"IpAddress":{{"AWS:SourceIp":"192.0.2"}}}}}}]}}"#),
            format!("{}{}", "[".repeat(4000), "]".repeat(4000)),
        ] {
            assert!(read(&text).is_err(), "{text}");
        }
    }
}
