//! Globs over User-Agent.

use memchr::memmem::Finder;

/// A glob in which `*` is any run of bytes. Compared without regard to the case of ASCII letters, in linear time: each part
/// between two stars is looked for once, behind the one before it.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    /// Before the first star; the whole, where there is none.
    start: Box<[u8]>,
    /// `None`: there is no star.
    rest: Option<Rest>,
}

#[derive(Clone, Debug)]
struct Rest {
    between: Vec<Finder<'static>>,
    /// After the last star.
    end: Box<[u8]>,
}

impl Glob {
    pub fn new(pattern: &str) -> Glob {
        let lower = pattern.to_ascii_lowercase();
        let mut parts = lower.split('*').map(str::as_bytes);
        let start = parts.next().unwrap_or_default().into();
        let rest = parts.next_back().map(|end| Rest {
            end: end.into(),
            between: parts.filter(|part| !part.is_empty()).map(|part| Finder::new(part).into_owned()).collect(),
        });
        Glob { text: pattern.to_owned(), start, rest }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Compares with the whole of a text that has no upper case in ASCII.
    pub fn matches(&self, lower: &[u8]) -> bool {
        let Some(Rest { between, end }) = &self.rest else { return lower == &*self.start };
        let Some(middle) = lower.strip_prefix(&*self.start).and_then(|text| text.strip_suffix(&**end)) else {
            return false;
        };
        let mut left = middle;
        between.iter().all(|part| {
            let found = part.find(left).and_then(|at| left.get(at + part.needle().len()..));
            left = found.unwrap_or_default();
            found.is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::cases;

    /// By trying everything.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
            Some((byte, rest)) => text.split_first().is_some_and(|(first, text)| first == byte && naive(rest, text)),
        }
    }

    #[test]
    fn stars_and_case() {
        let matches = |glob: &str, text: &str| Glob::new(glob).matches(text.to_ascii_lowercase().as_bytes());
        assert!(matches("*curl*", "libCURL/8") && matches("*curl*", "curl") && matches("curl/*", "curl/"));
        assert!(!matches("curl/*", "my curl/8") && !matches("curl", "curl/8") && matches("Curl", "cURL"));
        assert!(matches("", "") && !matches("", "a") && matches("*", "") && matches("**", "x"));
        assert!(matches("a*a", "aa") && !matches("a*a", "a") && matches("a*b*a", "aXbYa") && !matches("a*ba*a", "aba"));
    }

    #[test]
    fn what_backtracking_would_never_end_with() {
        let glob = Glob::new(&"a*".repeat(1_000));
        assert!(!glob.matches("a".repeat(999).as_bytes()));
        assert!(glob.matches("a".repeat(100_000).as_bytes()));
    }

    proptest! {
        #![proptest_config(cases(5_000))]

        #[test]
        fn as_plainly_as_can_be(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Glob::new(&pattern).matches(text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
