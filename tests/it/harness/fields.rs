//! Header fields as they were on the wire: in order, in the sender's letter case, duplicates kept.

/// Bytes are read as ISO-8859-1, so nothing is lost and nothing is refused.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first line's value; names compare without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every line's value, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// Whether a comma-separated field holds `token`, without case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// From the lines of a header section. A line without a colon is kept as a name without a value.
    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Fields {
        let line = |l: &str| match l.split_once(':') {
            Some((name, value)) => (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()),
            None => (l.to_owned(), String::new()),
        };
        Fields(lines.filter(|l| !l.is_empty()).map(line).collect())
    }

    /// As lines for the wire, each with its CRLF, without the empty line that ends a section.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            out.extend(latin1(name));
            out.extend(b": ");
            out.extend(latin1(value));
            out.extend(b"\r\n");
        }
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(n, v)| (n, v))).finish()
    }
}

/// The text's bytes in ISO-8859-1 where it has any, else in UTF-8.
pub(super) fn latin1(text: &str) -> Vec<u8> {
    if text.chars().all(|c| u32::from(c) < 256) {
        text.chars().map(|c| c as u8).collect()
    } else {
        text.as_bytes().to_vec()
    }
}

/// The bytes as ISO-8859-1.
pub(super) fn from_latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}
