//! What runs in the background for a pool: the following of names and of the watched file, and the checks.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::sleep;

use super::Inner;
use super::sources::SharedSlot;
use crate::origin::balance::clock;
use crate::origin::discovery::Answer;
use crate::origin::discovery::file::{Look, POLL, SETTLE, ServersFile};
use crate::origin::discovery::follow::follow;
use crate::origin::endpoint::Endpoint;
use crate::origin::health::active;
use crate::origin::member::Member;

/// Each runs for as long as it is held here.
#[derive(Debug)]
pub(super) struct Tasks {
    runtime: Handle,
    _file: Option<Task>,
    /// By slot.
    names: HashMap<usize, Task>,
    _judge: Option<Task>,
    /// By slot and endpoint.
    pub(super) checks: HashMap<(usize, Endpoint), Check>,
}

#[derive(Debug)]
pub(super) struct Check {
    /// As it was when the check began.
    member: Arc<Member>,
    _task: Task,
}

impl Inner {
    pub(super) fn start(self: &Arc<Self>, runtime: &Handle) {
        let mut tasks = self.tasks();
        if tasks.is_some() {
            return;
        }
        let file = self.origin.servers_file.clone();
        let file = file.map(|path| Task::spawn(runtime, follow_file(self.clone(), path)));
        let judge = self.health.judge.clone();
        let judge = judge.map(|judge| Task::spawn(runtime, async move { judge.run().await }));
        let (names, checks) = (HashMap::new(), HashMap::new());
        *tasks = Some(Tasks { runtime: runtime.clone(), _file: file, names, _judge: judge, checks });
        drop(tasks);
        self.began(clock::now());
        self.align();
    }

    /// Sees to it that each name is followed by one task and each member is checked by one, and nobody else is.
    pub(super) fn align(self: &Arc<Self>) {
        let mut tasks = self.tasks();
        let Some(Tasks { runtime, names, checks, .. }) = &mut *tasks else { return };
        // Read while the tasks are locked: of two changes at once, the later one is seen by whoever comes last.
        let sources = self.sources();
        let named: HashSet<usize> = sources.named().map(|(slot, _)| slot.index).collect();
        names.retain(|index, _| named.contains(index));
        for (slot, answer) in sources.named() {
            names
                .entry(slot.index)
                .or_insert_with(|| Task::spawn(runtime, follow_name(self.clone(), slot.clone(), answer.cloned())));
        }
        drop(sources);

        let Some(how) = &self.health.checks else { return };
        let members = self.members();
        let current: HashMap<_, &Arc<Member>> =
            members.iter().map(|member| ((member.index, member.endpoint().clone()), member)).collect();
        // What a check asks for and what it writes to must be the member's still.
        let holds =
            |then: &Member, now: &Member| Arc::ptr_eq(&then.state, &now.state) && then.found.text == now.found.text;
        checks.retain(|key, check| current.get(key).is_some_and(|member| holds(&check.member, member)));
        for (key, member) in current {
            checks.entry(key).or_insert_with(|| {
                let (inner, how, watched) = (self.clone(), how.clone(), member.clone());
                let task = Task::spawn(runtime, async move {
                    active::watch(&inner.name, &how, &watched, || inner.changed()).await;
                });
                Check { member: member.clone(), _task: task }
            });
        }
    }
}

#[cfg(test)]
impl Tasks {
    /// Names that are followed, and members that are checked.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.names.len(), self.checks.len())
    }
}

async fn follow_name(inner: Arc<Inner>, slot: SharedSlot, known: Option<Answer>) {
    let resolved = |answer: Option<&Answer>| inner.resolved(slot.index, answer);
    follow(&inner.name, &slot.shared, &slot.server.address, known, resolved).await;
}

async fn follow_file(inner: Arc<Inner>, path: PathBuf) {
    let mut file = ServersFile::new(path.clone());
    loop {
        let looked = spawn_blocking(move || {
            let look = file.look();
            (file, look)
        });
        let look;
        (file, look) = match looked.await {
            Ok(looked) => looked,
            // The runtime is going, or there is a bug in looking: from the beginning.
            Err(_) => (ServersFile::new(path.clone()), Look::Same),
        };
        let pause = if look == Look::Moving { SETTLE } else { POLL };
        if let Look::New(outcome) = look {
            inner.listed(outcome);
        }
        sleep(pause).await;
    }
}

/// A background task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(runtime.spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
