//! One who follows a fill.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pingora::Result;
use smallvec::SmallVec;

use super::super::disk::Spill;
use super::{Fill, Phase, Position, State, fail};

/// How much the writer's own reader is given at once. Both run in one task, taking turns, and the writer takes several
/// chunks a turn: a reader that took one would fall ever further behind.
pub(super) const AT_ONCE: usize = 512 * 1024;

/// How much is read from the file at once, by a reader that is behind what memory holds.
const FILE_AT_ONCE: u64 = 128 * 1024;

/// The same for the writer's own reader of what will not be kept after all: it has to catch up with its writer before
/// memory holds too much of what came since.
const CATCH_UP_AT_ONCE: u64 = 4 * 1024 * 1024;

/// One who follows a fill.
pub struct Reader {
    fill: Arc<Fill>,
    id: u64,
    /// It serves the client whose request feeds the fill.
    own: bool,
    /// Where it joins the chunks that it is given at once.
    joined: BytesMut,
}

/// What a reader finds.
enum Found {
    Bytes(Bytes),
    /// So many bytes from an offset on, in the file.
    File(Arc<Spill>, u64, u64),
    End,
}

impl Fill {
    /// A new reader, from the first byte on; `None` where that is no longer to be had, or the fill has failed.
    pub fn follow(self: &Arc<Fill>, id: u64) -> Option<Reader> {
        self.reader(id, false)
    }

    /// The reader of the client whose request feeds this fill. As any other, but it never fails before the writer is
    /// done: an error would end the request, and the fill with it, which others may follow.
    pub fn follow_own(self: &Arc<Fill>, id: u64) -> Option<Reader> {
        self.reader(id, true)
    }

    fn reader(self: &Arc<Fill>, id: u64, own: bool) -> Option<Reader> {
        let mut state = self.lock();
        // Looked at and entered under one lock: in between, the first chunks could go.
        if state.phase == Phase::Failed || state.oversize {
            return None;
        }
        state.readers.push(Position { reader: id, offset: 0, own, behind: 0 });
        drop(state);
        Some(Reader { fill: self.clone(), id, own, joined: BytesMut::new() })
    }

    /// What there is to be had now; `None`: nothing yet. The writer's own reader gets several chunks, joined in `joined`.
    fn look(&self, id: u64, joined: Option<&mut BytesMut>) -> Option<Result<Found>> {
        let mut pieces = SmallVec::<[Bytes; 8]>::new();
        let mut state = self.lock();
        let end = self.given_out(&state);
        let State { chunks, phase, readers, oversize, spill, .. } = &mut *state;
        let Some(position) = readers.iter_mut().find(|r| r.reader == id) else {
            let waits = joined.is_some() && *phase == Phase::Running;
            return (!waits).then(|| fail("too slow a reader of a response that is too large to keep"));
        };
        let in_memory = chunks.front().map(|first| first.end - first.bytes.len() as u64);
        if let Some(spilling) = spill
            && position.offset < spilling.flushed.min(end)
            && in_memory.is_none_or(|start| position.offset < start)
        {
            let to = in_memory.unwrap_or(u64::MAX).min(spilling.flushed).min(end);
            let at_once = if position.own && *oversize { CATCH_UP_AT_ONCE } else { FILE_AT_ONCE };
            let len = (to - position.offset).min(at_once);
            return Some(Ok(Found::File(spilling.spill.clone(), position.offset, len)));
        }
        let at_once = if joined.is_some() { AT_ONCE } else { 0 };
        let mut len = 0;
        let first = chunks.partition_point(|chunk| chunk.end <= position.offset);
        for chunk in chunks.iter().skip(first).take_while(|chunk| chunk.end <= end) {
            // What comes after the file may begin within a chunk.
            let passed = (position.offset + len as u64).saturating_sub(chunk.end - chunk.bytes.len() as u64);
            let piece = chunk.bytes.slice(usize::try_from(passed).unwrap_or(0)..);
            if !pieces.is_empty() && len + piece.len() > at_once {
                break;
            }
            len += piece.len();
            pieces.push(piece);
        }
        if pieces.is_empty() {
            return match phase {
                Phase::Complete => Some(Ok(Found::End)),
                Phase::Failed => Some(fail("the fill that this response follows has failed")),
                Phase::Running => None,
            };
        }
        position.offset += len as u64;
        if *oversize {
            self.let_go(&mut state);
        }
        drop(state);
        let Some(joined) = joined.filter(|_| pieces.len() > 1) else {
            return pieces.pop().map(|piece| Ok(Found::Bytes(piece)));
        };
        // The same room again and again, since what it held last has been sent.
        joined.reserve(AT_ONCE);
        pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        Some(Ok(Found::Bytes(joined.split().freeze())))
    }

    /// How far readers may read now. Where a response is to be on a disk when its client has it whole, its last bytes
    /// wait until it is.
    fn given_out(&self, state: &State) -> u64 {
        match self.expected {
            Some(expected)
                if state.phase == Phase::Running
                    && state.len == expected
                    && self.room.disk.is_some()
                    && !state.oversize =>
            {
                expected.saturating_sub(1)
            }
            _ => u64::MAX,
        }
    }

    /// Places a reader at an offset.
    fn place(&self, id: u64, offset: u64) {
        let mut state = self.lock();
        if let Some(position) = state.readers.iter_mut().find(|r| r.reader == id) {
            position.offset = offset;
        }
        if state.oversize {
            self.let_go(&mut state);
        }
    }
}

impl Reader {
    /// The next bytes; `None` at the end of a whole body. Whoever stops waiting for them loses none.
    ///
    /// # Errors
    /// The writer has failed, or this reader was dropped for being too slow: what it has had is not the whole body.
    pub async fn read(&mut self) -> Result<Option<Bytes>> {
        let Reader { fill, id, own, joined } = self;
        loop {
            // Before the look: a change in between wakes it.
            let changed = fill.changed.notified();
            match fill.look(*id, own.then_some(&mut *joined)) {
                Some(Ok(Found::Bytes(bytes))) => return Ok(Some(bytes)),
                Some(Ok(Found::File(spill, offset, len))) => {
                    let bytes = match spill.read(offset, len).await {
                        Ok(bytes) => bytes,
                        Err(_) if *own => {
                            // Its client is lost, but not those who follow, nor the fill: it ends with the writer.
                            fill.own_reader_left();
                            continue;
                        }
                        Err(e) => return Err(e),
                    };
                    // Only now: this future may have been dropped before.
                    fill.place(*id, offset + len);
                    return Ok(Some(bytes));
                }
                Some(Ok(Found::End)) => return Ok(None),
                Some(Err(e)) => return Err(e),
                None => changed.await,
            }
        }
    }

    /// Where a file has what is asked for, goes there at once rather than by way of what comes before; says whether it
    /// did. Only before the first read.
    pub fn seek(&mut self, offset: u64) -> bool {
        let spills = self.fill.spills();
        if spills {
            self.fill.place(self.id, offset);
        }
        spills
    }

    /// What is being read.
    pub fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.fill.lock();
        state.readers.retain(|r| r.reader != self.id);
        if state.oversize {
            self.fill.let_go(&mut state);
        }
    }
}
