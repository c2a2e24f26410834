//! Looking at what is stored without a trace: nothing is counted, opened for long, or moved in the order of eviction.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::{Disk, PendingWrite, folder, id_of, name};
use super::finding::Unopened;
use super::format::{Defect, FIRST_READ};
use super::io::FileKind;
use crate::store::key::ObjectId;
use crate::store::object::Head;

/// An object as it lies on a disk.
pub struct Seen {
    pub id: ObjectId,
    /// As it was stored, but for what the store alone knows: neither `began` nor `tiers` of its record mean anything.
    pub head: Result<Arc<Head>, Defect>,
    /// Bytes of the body.
    pub len: u64,
    /// `None`: it is about to be written.
    pub file: Option<PathBuf>,
}

/// The objects of a resource on a disk.
#[derive(Default)]
pub struct Variants {
    pub seen: Vec<Seen>,
    /// More that are there and have not been looked at.
    pub more: Vec<ObjectId>,
}

impl Disk {
    /// What is stored under a name; `None`: nothing that anybody would find. The body is not read. Blocks.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn inspect(&self, id: ObjectId) -> io::Result<Option<Seen>> {
        {
            let pending = self.shard(&id);
            if let Some(PendingWrite { object: Some(object), .. }) = pending.writes.get(&id) {
                let (head, len) = (Ok(object.head.clone()), object.body.len());
                return Ok(Some(Seen { id, head, len, file: None }));
            }
            if pending.removals.contains_key(&id) {
                return Ok(None);
            }
        }
        let file = Some(self.path().join(name(&id)));
        let mut tried = false;
        loop {
            return match self.open_head(id, FIRST_READ) {
                Ok(opened) => {
                    let len = opened.decoded.state.body_len;
                    Ok(Some(Seen { id, head: Ok(Arc::new(opened.decoded.head)), len, file }))
                }
                // It may have been in the middle of being given another head.
                Err(Unopened::Defect(Defect::Checksum, _)) if !tried => {
                    tried = true;
                    continue;
                }
                Err(Unopened::Defect(defect, _)) => Ok(Some(Seen { id, head: Err(defect), len: 0, file })),
                Err(Unopened::Missing) => Ok(None),
                Err(Unopened::Io(e)) => Err(e),
            };
        }
    }

    /// What is stored of the resource whose first object has that name, which comes first; at most so many. Blocks.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn variants(&self, primary: ObjectId, max: usize) -> io::Result<Variants> {
        let mut variants = Variants::default();
        for id in self.names_like(&primary)? {
            if variants.seen.len() == max {
                variants.more.push(id);
            } else {
                variants.seen.extend(self.inspect(id)?);
            }
        }
        Ok(variants)
    }

    /// The names that share a resource's half, in order.
    fn names_like(&self, primary: &ObjectId) -> io::Result<Vec<ObjectId>> {
        let like = |id: &ObjectId| id.0[..8] == primary.0[..8];
        let mut ids: Vec<_> = self.shard(primary).writes.keys().copied().filter(like).collect();
        match self.io.read_dir(&folder(primary)) {
            Ok(mut dir) => {
                let mut note = |name: &[u8], kind| {
                    ids.extend(id_of(name).filter(|id| kind == FileKind::File && like(id)));
                };
                while dir.page(&mut note)? {}
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        ids.sort_unstable_by_key(|id| (id != primary, *id));
        ids.dedup();
        Ok(ids)
    }
}
