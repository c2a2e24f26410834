//! All that is to be purged, a batch after the other: never more than one of them is held.

use std::io::Read;

use super::batch::{Batch, List, Place, Selector};
use super::lines::{Lines, Unreadable};

/// The selectors of the command line, and after them those of standard input.
pub struct Selectors<R> {
    everything: bool,
    soft: bool,
    raw: bool,
    arguments: std::vec::IntoIter<(List, String)>,
    input: Option<(List, Lines<R>)>,
    /// Had no place in the batch before.
    carried: Option<Selector>,
    /// Of standard input, read so far, in bytes.
    bytes: u64,
}

/// A batch that could not be put together, because its input could not be read. Nothing of it has been sent.
#[derive(Debug)]
pub struct Unread {
    pub why: Unreadable,
    /// Where its first selector was given.
    pub first: Place,
}

/// What of a purge is no selector.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    pub everything: bool,
    pub soft: bool,
    pub raw: bool,
}

impl<R: Read> Selectors<R> {
    pub fn new(manner: Manner, arguments: Vec<(List, String)>, input: Option<(List, Lines<R>)>) -> Selectors<R> {
        let Manner { everything, soft, raw } = manner;
        Selectors { everything, soft, raw, arguments: arguments.into_iter(), input, carried: None, bytes: 0 }
    }

    /// The next batch, as large as it may be. `None`: there are no more selectors. Blocks on the input.
    ///
    /// # Errors
    /// See [`Unread`]; ask no more afterwards.
    pub fn next(&mut self) -> Result<Option<Batch>, Unread> {
        let mut batch = Batch::new(std::mem::take(&mut self.everything), self.soft, self.raw);
        while !batch.is_full() {
            let selector = match self.selector() {
                Ok(Some(selector)) => selector,
                Ok(None) => break,
                Err(why) => {
                    let first = batch.first().cloned().unwrap_or(Place::Line(why.line));
                    return Err(Unread { why, first });
                }
            };
            if let Err(selector) = batch.push(selector) {
                self.carried = Some(selector);
                break;
            }
        }
        Ok((batch.count() > 0).then_some(batch))
    }

    /// Where what has not been handed out begins; `None`: it is known that nothing is left.
    pub fn rest(&self) -> Option<Place> {
        if let Some(selector) = &self.carried {
            return Some(selector.place.clone());
        }
        if let Some((list, text)) = self.arguments.as_slice().first() {
            return Some(Place::Argument(format!("{} {text}", list.option())));
        }
        self.input.as_ref().map(|(_, lines)| Place::Line(lines.number().saturating_add(1)))
    }

    /// Read from standard input, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn selector(&mut self) -> Result<Option<Selector>, Unreadable> {
        if let Some(selector) = self.carried.take() {
            return Ok(Some(selector));
        }
        if let Some((list, text)) = self.arguments.next() {
            return Ok(Some(Selector::argument(list, text)));
        }
        let Some((list, lines)) = &mut self.input else { return Ok(None) };
        let selector = lines.next()?.map(|(line, text)| Selector::line(*list, text, line));
        self.bytes = lines.bytes();
        if selector.is_none() {
            self.input = None;
        }
        Ok(selector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piped(input: &str) -> Option<(List, Lines<&[u8]>)> {
        Some((List::Urls, Lines::new(input.as_bytes())))
    }

    fn counts(selectors: &mut Selectors<&[u8]>) -> Vec<usize> {
        std::iter::from_fn(|| selectors.next().expect("readable").map(|batch| batch.count())).collect()
    }

    #[test]
    fn batches_are_as_large_as_they_may_be() {
        for (lines, expected) in
            [(0, vec![]), (1, vec![1]), (10_000, vec![10_000]), (10_001, vec![10_000, 1]), (20_000, vec![10_000; 2])]
        {
            let input: String = (0..lines).map(|n| format!("u{n}\n")).collect();
            let mut selectors = Selectors::new(Manner::default(), Vec::new(), piped(&input));
            assert_eq!(counts(&mut selectors), expected);
            assert_eq!((selectors.rest(), selectors.bytes()), (None, input.len() as u64));
        }
    }

    #[test]
    fn the_command_line_comes_first() {
        let input: String = (1..=10_000).map(|n| format!("u{n}\n")).collect();
        let arguments = vec![(List::Tags, "t".to_owned()), (List::Urls, "u".to_owned())];
        let manner = Manner { everything: true, ..Manner::default() };
        let mut selectors = Selectors::new(manner, arguments, piped(&input));
        let first = selectors.next().expect("readable").expect("a batch");
        assert_eq!(first.first(), Some(&Place::Argument("--everything".to_owned())));
        assert_eq!((first.line(List::Urls, 0), first.line(List::Urls, 1)), (None, Some(1)));
        assert_eq!(selectors.rest(), Some(Place::Line(9_998)));
        let second = selectors.next().expect("readable").expect("a batch");
        assert_eq!((second.count(), second.first()), (3, Some(&Place::Line(9_998))));
        assert!(!second.body().contains("everything"));
    }

    #[test]
    fn what_does_not_fit_comes_next() {
        let long = "\u{1}".repeat(60_000);
        // Of those, 46 are a batch: control characters are written with six bytes each.
        let input = format!("{long}\n\n") + &format!("{long}\n").repeat(46);
        let mut selectors = Selectors::new(Manner::default(), Vec::new(), piped(&input));
        assert_eq!(selectors.next().expect("readable").map(|it| it.count()), Some(46));
        assert_eq!(selectors.rest(), Some(Place::Line(48)));
        assert_eq!(counts(&mut selectors), [1]);
    }

    #[test]
    fn of_a_batch_that_cannot_be_read_the_beginning_is_told() {
        let long = "x".repeat(70_000);
        let input = format!("# urls\na\nb\n{long}\n");
        let mut selectors = Selectors::new(Manner::default(), Vec::new(), piped(&input));
        let unread = selectors.next().expect_err("a line is too long");
        assert_eq!((unread.why.line, unread.first), (4, Place::Line(2)));
        let mut selectors = Selectors::new(Manner::default(), Vec::new(), piped(&long));
        assert_eq!(selectors.next().expect_err("a line is too long").first, Place::Line(1));
    }
}
