//! Selectors on standard input, one a line.

use std::io::{self, BufRead, BufReader, Read};

/// A line without its end, at most, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// In memory at once, in bytes, beside one line.
const BUFFER: usize = 64 * 1024;

/// Some editors and exports begin a file with it. It is invisible, and would make the first selector one that nothing
/// has.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The selectors among the lines of a stream: neither blank nor a comment (`#` as the first character).
pub struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    /// Of lines read: the number of the latest, from 1.
    number: u64,
    /// Read so far, in bytes.
    bytes: u64,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// From 1.
    pub line: u64,
    pub why: String,
}

impl<R: Read> Lines<R> {
    pub fn new(input: R) -> Lines<R> {
        Lines { input: BufReader::with_capacity(BUFFER, input), line: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next selector, with the number of its line. `None`: the end; the last line may lack its line feed.
    ///
    /// # Errors
    /// A line that is too long or no UTF-8, and the system's. Nothing can be read afterwards.
    pub fn next(&mut self) -> Result<Option<(u64, &str)>, Unreadable> {
        while self.read()? {
            if !self.line.trim_ascii().is_empty() && !self.line.starts_with(b"#") {
                return match std::str::from_utf8(&self.line) {
                    Ok(text) => Ok(Some((self.number, text))),
                    Err(_) => Err(Unreadable { line: self.number, why: "not valid UTF-8".to_owned() }),
                };
            }
        }
        Ok(None)
    }

    /// The number of the latest line that has been read; 0: none.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How much has been read, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a line and takes its end off. False: there is none any more.
    fn read(&mut self) -> Result<bool, Unreadable> {
        self.line.clear();
        let unreadable = |line, why| Err(Unreadable { line, why });
        // So much that a line of the greatest length is read whole, with its end, and one byte more shows.
        let mut bounded = (&mut self.input).take(MAX_LINE as u64 + 2);
        let read = match bounded.read_until(b'\n', &mut self.line) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) => return unreadable(self.number.saturating_add(1), in_words(&error)),
        };
        self.number = self.number.saturating_add(1);
        self.bytes = self.bytes.saturating_add(read as u64);
        for end in [b'\n', b'\r'] {
            if self.line.last() == Some(&end) {
                self.line.pop();
            }
        }
        if self.line.len() > MAX_LINE {
            return unreadable(self.number, format!("more than {} KiB", MAX_LINE / 1024));
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }
}

fn in_words(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type All = (Vec<(u64, String)>, Option<Unreadable>);

    fn all(input: impl Read) -> All {
        let mut lines = Lines::new(input);
        let mut found = Vec::new();
        loop {
            match lines.next() {
                Ok(Some((number, text))) => found.push((number, text.to_owned())),
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    fn texts(input: &[u8]) -> Vec<(u64, String)> {
        let (found, error) = all(input);
        assert_eq!(error, None);
        found
    }

    fn line(number: u64, text: &str) -> (u64, String) {
        (number, text.to_owned())
    }

    /// Hands out its bytes in pieces of these lengths, and is interrupted before each.
    struct Pieces<'a> {
        bytes: &'a [u8],
        lengths: std::iter::Cycle<std::vec::IntoIter<usize>>,
        interrupted: bool,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = self.lengths.next().unwrap_or(1).min(buffer.len()).min(self.bytes.len());
            let (now, later) = self.bytes.split_at(length);
            buffer[..length].copy_from_slice(now);
            self.bytes = later;
            Ok(length)
        }
    }

    #[test]
    fn blank_lines_and_comments_count_but_are_no_selectors() {
        let input = b"# products\na\n\n \t\r\nb # not one\r\n#\r\n\r\n #c\nd";
        assert_eq!(texts(input), [line(2, "a"), line(5, "b # not one"), line(8, " #c"), line(9, "d")]);
        assert_eq!(texts(b""), []);
        assert_eq!(texts(b"\n"), []);
        assert_eq!(texts(b"a\r"), [line(1, "a")]);
        assert_eq!(texts(b"a\rb\r\r\n"), [line(1, "a\rb\r")]);
        assert_eq!(texts("\u{feff}a\n\u{feff}b\n".as_bytes()), [line(1, "a"), line(2, "\u{feff}b")]);
        assert_eq!(texts("\u{feff}# a\nb".as_bytes()), [line(2, "b")]);
    }

    #[test]
    fn a_line_has_a_greatest_length() {
        let longest = "x".repeat(MAX_LINE);
        for end in ["", "\n", "\r\n", "\r"] {
            assert_eq!(texts(format!("{longest}{end}").as_bytes()), [line(1, &longest)]);
            let (found, error) = all(format!("a\n{longest}x{end}").as_bytes());
            assert_eq!(found, [line(1, "a")]);
            assert_eq!(error, Some(Unreadable { line: 2, why: "more than 64 KiB".to_owned() }));
        }
        // However long it is, no more of it is read.
        assert!(all(io::repeat(b'x')).1.is_some());
        assert!(all(io::repeat(b'#')).1.is_some());
    }

    #[test]
    fn what_is_no_text_is_named() {
        let (found, error) = all(b"a\n# \xff is a comment\nb\n\xff\nc\n".as_slice());
        assert_eq!(found, [line(1, "a"), line(3, "b")]);
        assert_eq!(error, Some(Unreadable { line: 4, why: "not valid UTF-8".to_owned() }));
    }

    #[test]
    fn a_stream_that_fails_is_no_end() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let (found, error) = all(b"a\nb".chain(Fails));
        assert_eq!(found, [line(1, "a")]);
        assert_eq!(error, Some(Unreadable { line: 2, why: "cannot be read: the disk is gone".to_owned() }));
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => "[a-c# \r\n]{0,6}".prop_map(String::into_bytes),
            1 => Just("é\u{feff}".as_bytes().to_vec()),
            1 => Just(vec![0xff]),
            1 => (MAX_LINE - 2..MAX_LINE + 3).prop_map(|length| vec![b'x'; length]),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn however_it_arrives_the_lines_are_the_same(
            bytes in content(),
            lengths in proptest::collection::vec(1..40_000usize, 1..4),
        ) {
            let pieces = Pieces { bytes: &bytes, lengths: lengths.into_iter().cycle(), interrupted: false };
            prop_assert_eq!(all(pieces), all(bytes.as_slice()));
        }

        #[test]
        fn single_bytes_are_enough(text in "[a-c#é \r\n]{0,40}") {
            let pieces = Pieces { bytes: text.as_bytes(), lengths: vec![1].into_iter().cycle(), interrupted: false };
            prop_assert_eq!(all(pieces), all(text.as_bytes()));
        }

        /// What the standard library calls lines, less what is none here.
        #[test]
        fn lines_are_lines(text in "[a-c#é \r\n]{0,40}") {
            let expected: Vec<_> = text
                .split('\n')
                .map(|text| text.strip_suffix('\r').unwrap_or(text))
                .zip(1..)
                .filter(|(text, _)| !text.trim_ascii().is_empty() && !text.starts_with('#'))
                .map(|(text, number)| line(number, text))
                .collect();
            prop_assert_eq!(texts(text.as_bytes()), expected);
        }
    }
}
