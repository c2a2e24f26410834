//! What runs in the background for a pool: the following of names, and the checks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::Inner;
use crate::config::model::ServerAddress;
use crate::origin::balance::clock;
use crate::origin::discovery::dns;
use crate::origin::endpoint::Endpoint;
use crate::origin::health::active;

#[derive(Debug)]
pub(super) struct Tasks {
    runtime: Handle,
    /// Held for as long as they are to run.
    _names: Vec<Task>,
    _judge: Option<Task>,
    /// By slot and endpoint.
    pub(super) checks: HashMap<(usize, Endpoint), Task>,
}

impl Inner {
    pub(super) fn start(self: &Arc<Self>, runtime: &Handle) {
        let mut tasks = self.tasks();
        if tasks.is_some() {
            return;
        }
        let mut names = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            if let ServerAddress::Name { .. } = slot.server.address {
                names.push(Task::spawn(runtime, follow_name(self.clone(), index)));
            }
        }
        let judge = self.health.judge.clone();
        let judge = judge.map(|judge| Task::spawn(runtime, async move { judge.run().await }));
        *tasks = Some(Tasks { runtime: runtime.clone(), _names: names, _judge: judge, checks: HashMap::new() });
        drop(tasks);
        self.began(clock::now());
        self.align_checks();
    }

    /// Sees to it that each member is checked by one task, and nobody else is.
    pub(super) fn align_checks(self: &Arc<Self>) {
        let Some(check) = &self.origin.health_check else { return };
        let mut tasks = self.tasks();
        let Some(Tasks { runtime, checks, .. }) = &mut *tasks else { return };
        // Read while the tasks are locked: of two changes at once, the later one is seen by whoever comes last.
        let members = self.members();
        checks.retain(|(index, endpoint), _| members.iter().any(|m| (m.index, m.endpoint()) == (*index, endpoint)));
        for member in members.iter() {
            checks.entry((member.index, member.endpoint().clone())).or_insert_with(|| {
                let (inner, check, member) = (self.clone(), check.clone(), member.clone());
                Task::spawn(runtime, async move {
                    active::watch(&inner.origin, &check, &member, || inner.changed()).await;
                })
            });
        }
    }
}

async fn follow_name(inner: Arc<Inner>, index: usize) {
    let Some(slot) = inner.slots.get(index) else { return };
    let ServerAddress::Name { host, port } = &slot.server.address else { return };
    let mut awaited = !inner.members().iter().any(|member| member.index == index);
    dns::follow(&inner.name, &slot.shared, host, |addresses| {
        if let Some(addresses) = addresses {
            let found = addresses.iter().map(|ip| slot.found_at(SocketAddr::new(*ip, *port).into()));
            inner.found(slot, found.collect());
        }
        if std::mem::take(&mut awaited) {
            inner.unresolved.send_modify(|names| *names = names.saturating_sub(1));
        }
    })
    .await;
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
