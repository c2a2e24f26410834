//! Counting frames: what a client sends that costs and asks for nothing. Pure: sees bytes and the time.
//!
//! The `h2` crate bounds by itself what has an effect on it: CONTINUATION frames and the size of a header list, empty and
//! tiny DATA, streams that are reset before they were looked at, streams that broke the protocol. What it only answers or
//! ignores it does not count: PING and SETTINGS, PRIORITY, WINDOW_UPDATE, frames of unknown types, and resets of streams
//! that have been looked at. It does not show its frames, so they are counted beneath it, by their headers
//! (RFC 9113 §4.1).
//!
//! Some of these have their use, and its measure is what we send: a client opens its windows as it takes DATA, and may
//! measure the line by PING meanwhile. So what we send earns it some.

use super::super::preface::PREFACE;
use super::super::watch::Abuse;
use crate::config::model::Http2Limits;

/// Milliseconds that frames are counted over.
const WINDOW: u32 = 10_000;

/// What a client may send for each DATA or HEADERS frame of ours: a WINDOW_UPDATE for the stream, one for the connection,
/// and a PING.
const EARNED: u32 = 3;

/// Bytes of DATA that earn one more. A client may open both windows again for each piece that it takes out of a large
/// frame, and may take pieces of 4 KiB and less.
const PIECE: u32 = 1024;

/// What it may have earned and not spent.
const MOST_EARNED: u32 = 30_000;

/// RFC 9113 §6.
mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const CONTINUATION: u8 = 9;
}

/// The flag END_STREAM of DATA.
const END_STREAM: u8 = 1;

/// The frames of one connection.
pub struct Census {
    limits: Http2Limits,
    from_client: Frames,
    to_client: Frames,
    /// When this window began.
    began: u32,
    resets: u32,
    /// Control frames beyond those that were earned.
    control: u32,
    earned: u32,
}

/// What is in a frame's header that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
}

/// Finds frames in a stream of bytes that comes in pieces.
struct Frames {
    /// Bytes to be passed over: a payload.
    skip: u32,
    /// The part of a frame header that has come.
    head: [u8; HEAD],
    filled: usize,
}

/// Bytes of a frame header.
const HEAD: usize = 9;

impl Census {
    /// Of a connection from its client's preface on; `now` in milliseconds since any moment.
    pub fn new(limits: Http2Limits, now: u32) -> Census {
        Census {
            limits,
            from_client: Frames::after(PREFACE.len() as u32),
            to_client: Frames::after(0),
            began: now,
            resets: 0,
            control: 0,
            earned: 0,
        }
    }

    /// The client has sent these bytes by `now`: what it has done too much of, if it has.
    pub fn received(&mut self, bytes: &[u8], now: u32) -> Option<Abuse> {
        if now.saturating_sub(self.began) >= WINDOW {
            (self.began, self.resets, self.control) = (now, 0, 0);
        }
        let (mut resets, mut control, mut earned) = (self.resets, self.control, self.earned);
        self.from_client.read(bytes, |frame| match frame.kind {
            // The end of a request is worth a frame, and each header block is bounded by its size.
            kind::DATA if frame.length > 0 || frame.flags & END_STREAM != 0 => {}
            kind::CONTINUATION => {}
            // It may come with a priority, of the old or of the new kind.
            kind::HEADERS => earned = earned.saturating_add(1),
            kind::RST_STREAM => resets = resets.saturating_add(1),
            _ if earned > 0 => earned -= 1,
            _ => control = control.saturating_add(1),
        });
        (self.resets, self.control, self.earned) = (resets, control, earned.min(MOST_EARNED));
        if resets > self.limits.resets {
            return Some(Abuse::Resets);
        }
        (control > self.limits.control_frames).then_some(Abuse::ControlFrames)
    }

    /// These bytes have left for the client.
    pub fn sent(&mut self, bytes: &[u8]) {
        let mut earned = self.earned;
        self.to_client.read(bytes, |frame| {
            let more = match frame.kind {
                kind::DATA => EARNED + frame.length / PIECE,
                kind::HEADERS => EARNED,
                _ => return,
            };
            earned = earned.saturating_add(more);
        });
        self.earned = earned.min(MOST_EARNED);
    }
}

impl Frames {
    /// Those that come after so many bytes of something else.
    fn after(skip: u32) -> Frames {
        Frames { skip, head: [0; HEAD], filled: 0 }
    }

    fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = bytes.len().min(self.skip as usize);
                self.skip -= skipped as u32;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(HEAD - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.skip = length;
                each(Frame { length, kind, flags });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Http2Limits = Http2Limits { streams: 100, resets: 10, control_frames: 20 };

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + length, 0xff);
        bytes
    }

    fn open() -> Census {
        let mut census = Census::new(LIMITS, 0);
        assert_eq!(census.received(&PREFACE, 0), None);
        census
    }

    /// How many of these the client may send at `now`.
    fn allowed(census: &mut Census, bytes: &[u8], now: u32) -> (usize, Abuse) {
        (0..100_000).find_map(|count| Some((count, census.received(bytes, now)?))).expect("a limit")
    }

    #[test]
    fn each_kind_of_flood_has_an_end() {
        assert_eq!(allowed(&mut open(), &frame(kind::RST_STREAM, 0, 4), 0), (10, Abuse::Resets));
        for (kind, length) in [(PING, 8), (4, 0), (2, 5), (WINDOW_UPDATE, 4), (kind::DATA, 0), (7, 8), (0x77, 100)] {
            assert_eq!(allowed(&mut open(), &frame(kind, 0, length), 0), (20, Abuse::ControlFrames), "{kind}");
        }
        // Within the next ten seconds, there may be as many again.
        let mut census = open();
        for now in [0, WINDOW, 3 * WINDOW] {
            assert_eq!(allowed(&mut census, &frame(PING, 0, 8), now).0, 20);
            assert!(census.received(&frame(PING, 0, 8), now + WINDOW - 1).is_some());
        }
    }

    #[test]
    fn what_has_its_use_is_not_counted() {
        let mut census = open();
        for _ in 0..1000 {
            for frame in [frame(kind::HEADERS, 4, 30), frame(2, 0, 5), frame(kind::DATA, 0, 1), frame(kind::DATA, 1, 0)]
            {
                assert_eq!(census.received(&frame, 1), None);
            }
            census.sent(&frame(kind::DATA, 0, 16));
            for frame in [frame(WINDOW_UPDATE, 0, 4), frame(WINDOW_UPDATE, 0, 4), frame(PING, 0, 8)] {
                assert_eq!(census.received(&frame, 1), None);
            }
        }
        assert_eq!(allowed(&mut census, &frame(PING, 0, 8), 1).0, 20);
        // Both windows for each 4 KiB of a large frame.
        let mut census = open();
        for _ in 0..1000 {
            census.sent(&frame(kind::DATA, 0, 16 * 1024));
            (0..8).for_each(|_| assert_eq!(census.received(&frame(WINDOW_UPDATE, 0, 4), 1), None));
        }
        // Our answers to what is counted earn nothing.
        let mut census = open();
        for kind in [PING, 4, 7, WINDOW_UPDATE] {
            census.sent(&frame(kind, 1, 8));
        }
        assert_eq!(allowed(&mut census, &frame(PING, 0, 8), 1).0, 20);
        // Nor is there any end to what can be earned.
        (0..MOST_EARNED).for_each(|_| census.sent(&frame(kind::DATA, 0, 0)));
        assert_eq!(allowed(&mut census, &frame(PING, 0, 8), WINDOW + 1).0, MOST_EARNED as usize + 20);
    }

    proptest! {
        #[test]
        fn it_counts_the_same_however_the_bytes_are_cut(
            frames in proptest::collection::vec((0u8..11, any::<u8>(), 0usize..40), 0..60),
            cuts in proptest::collection::vec(1usize..50, 1..60),
        ) {
            let mut bytes = PREFACE.to_vec();
            frames.iter().for_each(|(kind, flags, length)| bytes.extend(frame(*kind, *flags, *length)));
            let mut found = Vec::new();
            let mut parser = Frames::after(PREFACE.len() as u32);
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, others) = rest.split_at(rest.len().min(*cut));
                parser.read(piece, |frame| found.push((frame.kind, frame.flags, frame.length as usize)));
                rest = others;
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn any_bytes_are_survived(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut census = Census::new(LIMITS, 0);
            for piece in &pieces {
                census.received(piece, 1);
                census.sent(piece);
            }
        }
    }
}
