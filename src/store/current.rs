//! Whether what is stored, or about to be, may still be used: what the ledger makes of it.

use std::sync::Arc;
use std::time::SystemTime;

use pingora_cache::key::HashBinary;

use super::key::{ObjectId, ObjectKey};
use super::object::{Body, Head, Object};
use super::store::Store;
use crate::invalidate::{Ledger, NEVER, Verdict};

impl Store {
    /// All purges.
    pub fn ledger(&self) -> &Arc<Ledger> {
        self.disks().ledger()
    }

    /// An object that has been found, if no purge forbids its use: the same, or as a soft purge has made it. Where nothing
    /// has been purged since it was last asked for, that is one look at a number.
    pub fn usable(&self, id: &ObjectId, object: Arc<Object>) -> Option<Arc<Object>> {
        let ledger = self.ledger().head();
        let since = object.head.since();
        if since >= ledger && since != NEVER {
            return Some(object);
        }
        let facts = object.head.record.facts;
        let Some(now) = self.verdict(&object.head).apply(facts, SystemTime::now().into()) else {
            match &object.body {
                Body::Memory(_) => self.memory().remove_this(id, &object),
                Body::Disk(file) => _ = self.disks().of(id).map(|disk| disk.discard(file)),
            }
            return None;
        };
        if now == facts {
            object.head.set_checked(ledger);
            return Some(object);
        }
        let head = object.head.with_facts(now);
        head.set_checked(ledger);
        let stale = Arc::new(Object::new(Arc::new(head), object.body.clone()).succeeding(&object));
        match &object.body {
            Body::Memory(_) => self.memory().replace_this(id, &object, &stale),
            Body::Disk(_) => _ = self.disks().of(id).map(|disk| disk.replace_open(*id, &object, &stale)),
        }
        Some(stale)
    }

    /// Whether something may be stored under a key, or be found by it again after the process: if not, that need not be
    /// told of what makes it unusable.
    pub fn may_hold(&self, primary: &HashBinary) -> bool {
        let id = ObjectKey::primary(*primary).id();
        self.memory().peek(&id).is_some() || self.disks().of(&id).is_some_and(|disk| disk.may_hold(&id))
    }

    /// What purges have made of something that is stored.
    pub fn verdict(&self, head: &Head) -> Verdict {
        self.ledger().verdict(&head.record.key, &head.record.tags, head.since())
    }

    /// The same of what is on its way there.
    pub(super) fn verdict_on_way(&self, head: &Head) -> Verdict {
        self.ledger().verdict_on_way(&head.record.key, &head.record.tags, head.since())
    }

    /// A head for what is about to be stored, as purges since it began have made it; `None`: it must not be stored.
    pub(super) fn admitted(&self, head: Head) -> Option<Head> {
        let ledger = self.ledger().head();
        let facts = self.verdict_on_way(&head).apply(head.record.facts, SystemTime::now().into())?;
        let head = if facts == head.record.facts { head } else { head.with_facts(facts) };
        head.set_checked(ledger);
        Some(head)
    }

    /// Whether nothing has been purged that concerns a response since it was last looked at.
    pub(super) fn is_current(&self, head: &Head) -> bool {
        let ledger = self.ledger().head();
        let is_alive = self.verdict_on_way(head) == Verdict::Alive;
        if is_alive {
            head.set_checked(ledger);
        }
        is_alive
    }

    /// The same, to be asked later.
    pub(super) fn currency(&'static self, head: &Arc<Head>) -> impl Fn() -> bool + Send + Sync + use<> {
        let head = head.clone();
        move || self.is_current(&head)
    }
}
