//! Giving a stored object another head, as a validation has it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, PendingWrite, Phase, name};
use super::file::Since;
use super::format::{self, Decoded, FIRST_READ, State, TableBuilder};
use super::health::Kind;
use super::io::FileKind;
use super::stats::Refused;
use super::writing::{Current, Unwritten};
use crate::store::key::ObjectId;
use crate::store::object::{Body, Head, Object};

/// An object whose head has outgrown its file is written anew if its body is no longer than this, in bytes; else it is
/// removed.
const REWRITTEN_MAX: u64 = 8 * 1024 * 1024;

impl Disk {
    /// Gives an object another head. From the call on, it has it; the future is done when the file has it too.
    pub fn freshen<C: Current>(
        self: &Arc<Disk>,
        id: ObjectId,
        head: Arc<Head>,
        current: C,
    ) -> impl Future<Output = ()> + Send + use<C> {
        self.freshen_in_memory(id, &head);
        let job = matches!(self.phase(), Phase::Standby | Phase::Loading | Phase::Ready).then(|| {
            let of_job = self.clone();
            self.promptly(move || {
                if let Err(why) = of_job.freshen_blocking(id, &head, &current) {
                    // The head that the file has is of before.
                    of_job.unwritten(id, why, false);
                }
            })
        });
        let disk = self.clone();
        async move {
            if let Some(job) = job
                && let Err(e) = job.await
            {
                disk.not_done(Kind::Write, e);
                disk.remove(id).await;
            }
        }
    }

    /// Gives another head to an object that is about to be written, or is open.
    fn freshen_in_memory(&self, id: ObjectId, head: &Arc<Head>) {
        let fresh = |object: &Object| Arc::new(Object::new(head.clone(), object.body.clone()).succeeding(object));
        if let Some(PendingWrite { object: Some(object), .. }) = self.shard(&id).writes.get_mut(&id) {
            if object.head.record.id == head.record.id {
                *object = fresh(object);
            }
            return;
        }
        if let Some(object) = self.peek(&id).filter(|object| object.head.record.id == head.record.id) {
            self.remember(id, &fresh(&object));
        }
    }

    pub(super) fn freshen_blocking(
        self: &Arc<Disk>,
        id: ObjectId,
        head: &Arc<Head>,
        current: &impl Current,
    ) -> Result<(), Unwritten> {
        let alone = self.file_lock(&id);
        let file = match self.io.open_writable(&name(&id)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let stat = self.io.stat(&file)?;
        if stat.kind != FileKind::File {
            return Err(Unwritten::Outdated);
        }
        // Of one that is damaged, whoever reads it will find out too.
        let (_, Ok(Decoded { head: old, state })) =
            self.read_head(id, &file, stat.size, FIRST_READ, self.vouching.swept())?
        else {
            return Err(Unwritten::Outdated);
        };
        if old.record.id != head.record.id || !current() {
            return Err(Unwritten::Outdated);
        }
        let Some(update) = format::update(&state, head) else {
            drop(alone);
            return self.rewrite(id, &file, &state, head, current);
        };
        // Not those that are opened in the middle of it: they may have the old head.
        let mut open = self.open_files(&id);
        open.retain(|open| open.inode() == stat.inode && open.since() == Since::Same);
        for write in &update.writes {
            self.io.pwrite_all(&file, write.offset, &write.bytes)?;
        }
        let stat = self.io.stat(&file)?;
        open.iter().for_each(|open| open.stamp(&stat));
        Ok(())
    }

    fn rewrite(
        self: &Arc<Disk>,
        id: ObjectId,
        file: impl std::os::fd::AsFd,
        state: &State,
        head: &Arc<Head>,
        current: &impl Current,
    ) -> Result<(), Unwritten> {
        if state.body_len > REWRITTEN_MAX {
            return Err(Unwritten::Refused(Refused::Head));
        }
        let mut body = vec![0; usize::try_from(state.body_len).unwrap_or(0)];
        let read = self.io.pread(&file, state.layout.body_offset(), &mut body)?;
        let table_at = state.layout.table_offset(state.body_len);
        let mut table = vec![0; usize::try_from(state.layout.file_len(state.body_len) - table_at).unwrap_or(0)];
        let read_table = self.io.pread(&file, table_at, &mut table)?;
        let whole = read == body.len() && read_table == table.len();
        let mut built = TableBuilder::default();
        built.update(&body);
        // What is damaged must not be given checksums that fit it.
        if !whole || built.finish().encode() != table {
            return Err(Unwritten::Refused(Refused::Error));
        }
        let object = Object::new(head.clone(), Body::Memory(Bytes::from(body)));
        self.write_whole(id, &object, current)
    }
}

#[cfg(test)]
#[path = "freshen_tests.rs"]
mod tests;
